package PVE::Cluster;
# What the storage module asks of a cluster, for one node that is alone: files below /etc/pve, locks that are
# always free, no other guests. For tests against the real storage module.
use strict;
use warnings;
use base 'Exporter';
our @EXPORT_OK = qw(cfs_register_file cfs_read_file cfs_write_file cfs_lock_file);

my $readers = {};

sub cfs_register_file { my ($name, $read, $write) = @_; $readers->{$name} = [ $read, $write ]; return }

sub cfs_read_file {
    my ($name) = @_;
    my $text = '';
    if (open(my $file, '<', "/etc/pve/$name")) { local $/ = undef; $text = <$file> // ''; close($file) }
    my $reader = $readers->{$name} or return {};
    return $reader->[0]->("/etc/pve/$name", $text);
}

sub cfs_write_file {
    my ($name, $data) = @_;
    open(my $file, '>', "/etc/pve/$name") or die "$name: $!\n";
    print {$file} $readers->{$name}->[1]->("/etc/pve/$name", $data);
    close($file) or die "$name: $!\n";
    return;
}

sub cfs_lock_file    { my ($name, $timeout, $code, @more) = @_; return _locked($code, @more) }
sub cfs_lock_storage { my ($name, $timeout, $code, @more) = @_; return _locked($code, @more) }

# As the real ones do: what went wrong is in $@.
sub _locked {
    my ($code, @more) = @_;
    my $result = eval { $code->(@more) };
    return $result;
}

sub get_vmlist { return { ids => {} } }
sub get_nodelist { return ['node'] }
1;
