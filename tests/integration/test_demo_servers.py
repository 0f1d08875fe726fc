from recoup.demo.servers import PostgresServer, RedisServer, S3Server


def test_every_postgres_runs_with_checksums_and_lets_replication_in(any_postgres: PostgresServer) -> None:
    assert any_postgres.execute("SHOW data_checksums") == [("on",)]
    assert any_postgres.execute("SHOW wal_level") == [("replica",)]
    with any_postgres.connect(replication="database") as connection:
        row = connection.execute("IDENTIFY_SYSTEM").fetchone()
    assert row is not None
    assert int(row[0]) > 0
    assert any_postgres.execute("SHOW server_version_num")[0][0].startswith(str(any_postgres.major))


def test_a_stopped_postgres_comes_back_with_its_data_at_the_same_address(postgres17: PostgresServer) -> None:
    name, url = postgres17.new_database(), postgres17.url()
    postgres17.kill()
    assert postgres17.pid is None
    postgres17.start()
    assert postgres17.url() == url
    assert postgres17.execute("SELECT current_database()", name) == [(name,)]


def test_every_redis_keeps_to_its_password_and_starts_empty(any_redis: RedisServer) -> None:
    client = any_redis.client()
    try:
        assert client.dbsize() == 0
        assert client.set("key", "value")
    finally:
        client.close()


def test_the_s3_server_locks_objects_and_knows_its_buckets_after_a_restart(s3: S3Server) -> None:
    bucket, client = s3.new_bucket(lock=True), s3.client()
    try:
        client.put_object(Bucket=bucket, Key="a", Body=b"1")
        s3.stop()
        s3.start()
        assert client.get_object(Bucket=bucket, Key="a")["Body"].read() == b"1"
        assert client.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"] == {
            "ObjectLockEnabled": "Enabled"
        }
    finally:
        client.close()
