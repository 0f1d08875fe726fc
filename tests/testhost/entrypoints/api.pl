#!/usr/bin/perl
# The application of the example stack: it is healthy when its database and its Redis answer it.
#   GET /api/health   200 {"status": "ok", "orders": 2000, "redis": "PONG"}, or 503 and what is wrong
#   GET /api/orders   the five newest orders, from the database
use strict;
use warnings;
use IO::Socket::INET;

$| = 1;
$SIG{TERM} = $SIG{INT} = sub { exit 0 };    # the first process of a container has no default handlers
$SIG{PIPE} = 'IGNORE';

my ($user, $password, $host, $port, $database) =
  $ENV{DATABASE_URL} =~ m{^postgres(?:ql)?://([^:]+):([^@]+)@([^:/]+):(\d+)/(\w+)} or die "DATABASE_URL?\n";
@ENV{qw(PGUSER PGPASSWORD PGHOST PGPORT PGDATABASE PGCONNECT_TIMEOUT)} = ($user, $password, $host, $port, $database, 3);
my ($redis_password, $redis_host, $redis_port) =
  $ENV{REDIS_URL} =~ m{^redis://:([^@]*)@([^:/]+):(\d+)} or die "REDIS_URL?\n";

sub query {
    my ($sql) = @_;
    open(my $pipe, '-|', 'psql', '-XAtqc', $sql) or return;
    my $said = do { local $/; <$pipe> };
    close($pipe) or return;
    chomp $said;
    return $said;
}

sub redis {
    my $socket = IO::Socket::INET->new(PeerAddr => $redis_host, PeerPort => $redis_port, Timeout => 3) or return;
    print $socket "AUTH $redis_password\r\nPING\r\n";
    my ($auth, $pong) = (scalar <$socket>, scalar <$socket>);
    return defined $pong && $pong =~ /^\+PONG/ ? 'PONG' : undef;
}

my $server = IO::Socket::INET->new(LocalAddr => '0.0.0.0', LocalPort => 3000, Listen => 16, ReuseAddr => 1) or die $@;
print "listening on 3000\n";
while (1) {
    my $client = $server->accept or next;
    my ($path) = (scalar <$client> // '') =~ m{^GET (\S+)};
    while (defined(my $line = <$client>)) { last if $line =~ /^\r?\n$/ }
    my ($status, $body) = ('404 Not Found', '{"status": "error", "what": "no such page"}');
    if (($path // '') eq '/api/health') {
        my ($orders, $pong) = (query('select count(*) from orders'), redis());
        ($status, $body) =
            !defined $orders ? ('503 Service Unavailable', '{"status": "error", "what": "database"}')
          : !defined $pong   ? ('503 Service Unavailable', '{"status": "error", "what": "redis"}')
          :                    ('200 OK', qq({"status": "ok", "orders": $orders, "redis": "$pong"}));
    }
    elsif (($path // '') eq '/api/orders') {
        my $rows = query('select coalesce(json_agg(o), \'[]\') from (select * from orders order by id desc limit 5) o');
        ($status, $body) = defined $rows ? ('200 OK', $rows) : ('503 Service Unavailable', '[]');
    }
    my $length = length $body;
    print $client "HTTP/1.0 $status\r\nContent-Type: application/json\r\nContent-Length: $length\r\n\r\n$body";
    close $client;
}
