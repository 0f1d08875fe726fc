#!/usr/bin/perl
# As much of wget as a health check needs: wget [options] http://HOST:PORT/PATH. Exits 8 unless the answer is 200.
use strict;
use warnings;
use IO::Socket::INET;

my ($host, $port, $path) = $ARGV[-1] =~ m{^http://([^:/]+):(\d+)(/.*)$} or exit 2;
my $socket = IO::Socket::INET->new(PeerAddr => $host, PeerPort => $port, Timeout => 5) or exit 4;
print $socket "GET $path HTTP/1.0\r\nHost: $host\r\n\r\n";
my $status = <$socket> // '';
while (defined(my $line = <$socket>)) { last if $line =~ /^\r?\n$/ }
print while <$socket>;
exit($status =~ / 200 / ? 0 : 8);
