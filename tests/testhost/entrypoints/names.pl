#!/usr/bin/perl
# The name server of a machine's network: it knows no name, and says so at once. Without one, a container that asks for
# a service that is not there waits for twenty seconds, and so does who wants to stop it.
use strict;
use warnings;
use IO::Socket::INET;

my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 53, Proto => 'udp') or die "names: $@\n";
while (1) {
    defined $socket->recv(my $message, 4096) or next;
    next if length $message < 12;
    substr($message, 2, 2) = pack('n', 0x8183);    # an answer, and no such name (RFC 1035, section 4.1.1)
    $socket->send($message);
}
