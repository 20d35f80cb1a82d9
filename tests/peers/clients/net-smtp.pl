# Sends one file with Perl's Net::SMTP: host port mode ca user password from to file
use strict;
use warnings;
use Net::SMTP;

my ($host, $port, $mode, $ca, $user, $password, $from, $to, $path) = @ARGV;
open(my $file, '<:raw', $path) or die "$path: $!";
my $content = do { local $/; <$file> };
my @tls = (SSL_ca_file => $ca, SSL_verifycn_name => $host);
my $smtp = Net::SMTP->new($host, Port => $port, Timeout => 60, Hello => 'app.test',
    ($mode eq 'implicit' ? (SSL => 1, @tls) : ())) or die "connect: $@";
if ($mode eq 'starttls' || $mode eq 'auth') {
    $smtp->starttls(@tls) or die 'starttls: ' . $smtp->message;
}
if ($mode eq 'auth') {
    $smtp->auth($user, $password) or die 'auth: ' . $smtp->message;
}
$smtp->mail($from, Bits => 8) or die 'mail: ' . $smtp->message;
$smtp->to($to) or die 'rcpt: ' . $smtp->message;
$smtp->data or die 'data: ' . $smtp->message;
$smtp->datasend($content) or die 'content: ' . $smtp->message;
$smtp->dataend or die 'dot: ' . $smtp->message;
$smtp->quit;
