package Vmhold::Client;

# Asks the API of a vmhold store: TLS with a certificate that is known by its fingerprint, a token, and
# changes that are made once however often they are asked for. Knows nothing of Proxmox VE.

use strict;
use warnings;

use HTTP::Tiny;
use IO::Socket::SSL ();    # HTTP::Tiny loads it when it is needed; here it is missed at once
use JSON ();
use Net::SSLeay ();

our $VERSION = '0.1.0';

# A snapshot or a rollback takes as long however large the disk is; a store that starts takes longer.
my $TIMEOUT_SECONDS = 10;
my $TRIES           = 3;
# A guest may be frozen meanwhile.
my $PATIENCE_SECONDS = 10;

my $keys = 0;

# address => 'host:port', fingerprint => 'AA:BB:...', token => '...'
sub new {
    my ($class, %of) = @_;
    my $self = bless { address => $of{address}, fingerprint => plain($of{fingerprint}), shown => undef }, $class;
    $self->{http} = HTTP::Tiny->new(
        agent           => "vmhold-proxmox/$VERSION ",
        timeout         => $of{timeout} // $TIMEOUT_SECONDS,
        default_headers => { Accept => 'application/json', Authorization => "Bearer $of{token}" },
        # No authority has signed the certificate, so none is asked: it is the one we know, or it is not.
        verify_SSL  => 0,
        SSL_options => {
            SSL_verify_mode     => IO::Socket::SSL::SSL_VERIFY_PEER(),
            SSL_verifycn_scheme => 'none',
            SSL_verify_callback => sub { $self->_is_known($_[4], $_[5]) },
        },
    );
    return $self;
}

# Letters and digits of a fingerprint, small; empty if it is none.
sub plain {
    my ($fingerprint) = @_;
    my $digits = lc($fingerprint // '');
    $digits =~ s/://g;
    return $digits =~ m/^([0-9a-f]{64})$/ ? $1 : '';
}

# As Proxmox VE writes it: AA:BB:...
sub written {
    my ($fingerprint) = @_;
    return join(':', map { uc } plain($fingerprint) =~ m/../g);
}

# The certificate of the server itself decides; those above it in a chain say nothing.
sub _is_known {
    my ($self, $certificate, $depth) = @_;
    return 1 if $depth != 0;
    my $shown = plain(Net::SSLeay::X509_get_fingerprint($certificate, 'sha256'));
    $self->{shown} = $shown;
    return $shown ne '' && $shown eq $self->{fingerprint} ? 1 : 0;
}

# Answer of a question, or dies with a message for people.
sub get {
    my ($self, $path) = @_;
    return $self->_or_die($self->ask('GET', $path));
}

# Makes a change; `confirm` names what it is about where that is demanded.
sub change {
    my ($self, $method, $path, %of) = @_;
    return $self->_or_die($self->ask($method, $path, %of));
}

sub _or_die {
    my ($self, $data, $problem) = @_;
    return $data if !$problem;
    die message($problem) . "\n";
}

# What went wrong, in one line.
sub message {
    my ($problem) = @_;
    my @why  = @{ $problem->{why} // [] };
    my @step = map { $_->{cli} // () } @{ $problem->{do} // [] };
    my $text = "vmhold: $problem->{detail}";
    $text .= ': ' . join('; ', @why) if @why;
    $text .= " ($problem->{code})"   if $problem->{code};
    $text .= " - $step[0]"           if @step;
    return $text;
}

# Asks, again where that may help; returns (answer, undef) or (undef, problem).
sub ask {
    my ($self, $method, $path, %of) = @_;
    my %headers = ();
    $headers{Confirm}           = segment($of{confirm})                 if defined($of{confirm});
    $headers{'Idempotency-Key'} = join('-', 'pve', $$, time(), ++$keys) if $method eq 'POST';
    my %options = (headers => \%headers);
    if (defined($of{body})) {
        $headers{'Content-Type'} = 'application/json';
        $options{content} = JSON->new->utf8->canonical->encode($of{body});
    }
    my $until = time() + $PATIENCE_SECONDS;
    my ($data, $problem);
    for my $try (1 .. $TRIES) {
        ($data, $problem) = $self->_once($method, $path, \%options);
        last if !$problem || !$problem->{again} || $try == $TRIES || time() >= $until;
        sleep($try);
    }
    return ($data, $problem);
}

sub _once {
    my ($self, $method, $path, $options) = @_;
    $self->{shown} = undef;
    my $response = $self->{http}->request($method, "https://$self->{address}$path", $options);
    my $document = eval { JSON->new->utf8->decode($response->{content} // '') };
    if ($response->{success}) {
        return ($document->{data}, undef) if ref($document) eq 'HASH';
        return (undef, { detail => "$self->{address} answers with something else than the API of vmhold" });
    }
    return (undef, $self->_unreachable($response)) if $response->{status} == 599;
    if (ref($document) eq 'HASH' && $document->{detail}) {
        $document->{again} = 1 if $document->{retryable} && defined($document->{retry_after_seconds});
        return (undef, $document);
    }
    return (undef, { detail => "$self->{address} answered $response->{status} $response->{reason}" });
}

sub _unreachable {
    my ($self, $response) = @_;
    my $shown = $self->{shown};
    if (defined($shown) && $shown ne $self->{fingerprint}) {
        my $known = $self->{fingerprint} ? written($self->{fingerprint}) : 'none';
        return {
            status => 599,
            detail => "$self->{address} shows a certificate that is not the known one",
            why    => [ 'its fingerprint is ' . written($shown) . ", known is $known" ],
            do     => [ { cli => 'compare with what the server printed at its first start; then: pvesm set STORAGE --fingerprint' } ],
        };
    }
    my $why = $response->{content} // '';
    $why =~ s/\s+/ /g;
    $why =~ s/ at \S+ line \d+\.? ?$//;
    return { status => 599, again => 1, detail => "the API at $self->{address} cannot be reached", why => [$why] };
}

# A part of a path in a URL.
sub segment {
    my ($text) = @_;
    utf8::encode($text) if utf8::is_utf8($text);
    $text =~ s/([^A-Za-z0-9_.~-])/sprintf('%%%02X', ord($1))/ge;
    return $text;
}

1;
