package PVE::Storage::NFSPlugin;

# Stands in for Proxmox VE's plugin of this name: what is mounted where. Written from its published interface.

use strict;
use warnings;

use File::Path qw(make_path);

use PVE::Tools qw(run_command);

use base 'PVE::Storage::Plugin';

sub type {
    return 'nfs';
}

sub plugindata {
    my %content = map { $_ => 1 } qw(images rootdir vztmpl iso backup snippets import);
    return {
        content                => [ \%content, { images => 1 } ],
        format                 => [ { raw => 1, qcow2 => 1, vmdk => 1 }, 'raw' ],
        'sensitive-properties' => {},
    };
}

sub properties {
    return { export => { type => 'string' }, server => { type => 'string' } };
}

sub options {
    my %optional = map { $_ => { optional => 1 } } qw(content-dirs nodes disable prune-backups max-protected-backups
        options content format mkdir create-base-path create-subdirs bwlimit preallocation snapshot-as-volume-chain);
    return { path => { fixed => 1 }, server => { fixed => 1 }, export => { fixed => 1 }, %optional };
}

sub check_config {
    my ($class, $storeid, $config, $create, $skip) = @_;
    $config->{path} = "/mnt/pve/$storeid" if $create && !$config->{path};
    return $class->SUPER::check_config($storeid, $config, $create, $skip);
}

# Both of these are replaced by the test, which mounts otherwise.
sub nfs_is_mounted { die "nfs_is_mounted\n" }
sub nfs_mount      { die "nfs_mount\n" }

sub status {
    my ($class, $storeid, $scfg, $cache) = @_;
    return if !nfs_is_mounted(@$scfg{qw(server export path)}, $cache->{mountdata});
    return $class->SUPER::status($storeid, $scfg, $cache);
}

sub activate_storage {
    my ($class, $storeid, $scfg, $cache) = @_;
    if (!nfs_is_mounted(@$scfg{qw(server export path)}, $cache->{mountdata})) {
        make_path($scfg->{path});
        nfs_mount(@$scfg{qw(server export path options)});
    }
    return $class->SUPER::activate_storage($storeid, $scfg, $cache);
}

sub deactivate_storage {
    my ($class, $storeid, $scfg, $cache) = @_;
    run_command([ '/bin/umount', $scfg->{path} ]) if nfs_is_mounted(@$scfg{qw(server export path)});
    return;
}

1;
