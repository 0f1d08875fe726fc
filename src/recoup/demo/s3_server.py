"""A real S3 service on the loopback: SeaweedFS."""

from __future__ import annotations

import json
import secrets
import urllib.request
from typing import Any

from recoup.demo.host import guard_files, reachable, remove_files
from recoup.demo.programs import Programs
from recoup.demo.server import Server
from recoup.kernel.process import Command


class S3Server(Server):
    """SeaweedFS as an S3 server with Object Lock, versioning and signatures. Buckets are made by ``new_bucket``."""

    region = "us-east-1"

    def __init__(self, program: Programs) -> None:
        # S3, master, volume, filer, admin; the gRPC port of each is 10000 above it.
        super().__init__("S3", ports=5, twin=10_000)
        self.program = reachable(program.path, program.package, self.owner)
        self.access_key = "recoup-" + secrets.token_hex(4)
        self.secret_key = secrets.token_urlsafe(24)

    @property
    def endpoint(self) -> str:
        """The address of the service."""
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> Any:
        """A boto3 client of this server."""
        import boto3  # loaded only here: it costs 0.2 s
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=30),
        )

    def new_bucket(self, *, lock: bool = False, lock_days: int = 0, prefix: str = "bucket") -> str:
        """Create an empty bucket with a name of its own and return the name.

        With ``lock`` it has Object Lock; with ``lock_days`` as well, every new object cannot be deleted for so long.
        """
        name = f"{prefix}-{secrets.token_hex(4)}"
        client = self.client()
        try:
            client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
            if lock_days:
                rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": lock_days}}
                configuration = {"ObjectLockEnabled": "Enabled", "Rule": rule}
                client.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=configuration)
        finally:
            client.close()
        return name

    def _prepare(self) -> None:
        self._own_folder("data")
        self._own_folder("tmp")

    def _command(self) -> Command:
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        identity = {
            "name": "recoup",
            "credentials": credentials,
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        config = self._own_file("s3.json", json.dumps({"identities": [identity]}))
        s3, master, volume, filer, admin = self.ports
        argv = [
            str(self.program),
            "mini",
            f"-dir={self.root / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-s3.config={config}",
            f"-s3.port={s3}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-master.port={master}",
            f"-volume.port={volume}",
            f"-filer.port={filer}",
            f"-admin.port={admin}",
            "-admin.ui=false",
            "-webdav=false",
            # Each bucket takes seven volumes; the default is as many as the disk holds of full ones.
            "-volume.max=10000",
            "-master.telemetry=false",
        ]
        # Its logs and caches go to the temporary folder and the home: to its own, so that they vanish with it.
        return Command(
            argv=argv,
            environment={"TMPDIR": str(self.root / "tmp"), "HOME": str(self.root)},
            user=self.owner,
            folder=self.root,
        )

    def _try_start(self) -> bool:
        for pattern in self._left_behind():
            guard_files(pattern)
        return super()._try_start()

    def close(self) -> None:
        """Stop and remove everything, also the sockets it leaves in ``/tmp`` (that place is fixed in its code)."""
        patterns = self._left_behind() if self._ports is not None else []
        super().close()
        for pattern in patterns:
            remove_files(pattern)

    def _left_behind(self) -> list[str]:
        return [f"/tmp/seaweedfs-*-{number + more}.sock" for number in self.ports for more in (0, self._twin)]  # noqa: S108

    def _ready(self) -> bool:
        # Healthy is not enough: the first write has to wait for a volume, and the port might be another's server,
        # which would not know our key.
        try:
            with urllib.request.urlopen(f"{self.endpoint}/healthz", timeout=2):  # noqa: S310 always http
                pass
        except OSError:
            return False
        from botocore.exceptions import BotoCoreError, ClientError

        client = self.client()
        try:
            client.create_bucket(Bucket="recoup-ready")
            client.put_object(Bucket="recoup-ready", Key="ready", Body=b"yes")
            client.delete_object(Bucket="recoup-ready", Key="ready")
            client.delete_bucket(Bucket="recoup-ready")
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True
