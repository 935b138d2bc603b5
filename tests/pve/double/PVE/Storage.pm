package PVE::Storage;

# Stands in for Proxmox VE's module of this name: finds plugins, and hands calls about volumes to theirs.
# Written from its published interface.

use strict;
use warnings;

use PVE::Storage::NFSPlugin;
use PVE::Storage::Plugin;

use constant APIVER => 15;
use constant APIAGE => 6;

PVE::Storage::NFSPlugin->register();
for my $path (glob('/usr/share/perl5/PVE/Storage/Custom/*.pm')) {
    my ($name) = $path =~ m!/([^/]+)\.pm$!;
    my $class = "PVE::Storage::Custom::$name";
    require "PVE/Storage/Custom/$name.pm";
    die "not derived from PVE::Storage::Plugin\n" if !$class->isa('PVE::Storage::Plugin');
    my $version = $class->api();
    die "API version $version\n" if $version > APIVER || $version < APIVER - APIAGE;
    $class->register();
}
PVE::Storage::Plugin->init();

my $config = { ids => {} };

sub config       { return $config }
sub write_config { ($config) = @_; return }

sub parse_volume_id {
    my ($volid) = @_;
    return ($1, $2) if $volid =~ m/^([a-z][a-z0-9\-\_\.]*[a-z0-9]):(.+)$/i;
    die "unable to parse volume ID '$volid'\n";
}

sub _of {
    my ($cfg, $storeid) = @_;
    my $scfg = $cfg->{ids}->{$storeid} // die "storage '$storeid' does not exist\n";
    return ($scfg, PVE::Storage::Plugin->lookup($scfg->{type}));
}

sub activate_storage {
    my ($cfg, $storeid) = @_;
    my ($scfg, $plugin) = _of($cfg, $storeid);
    die "storage '$storeid' is not online\n" if !$plugin->check_connection($storeid, $scfg);
    return $plugin->activate_storage($storeid, $scfg, {});
}

sub deactivate_storage {
    my ($cfg, $storeid) = @_;
    my ($scfg, $plugin) = _of($cfg, $storeid);
    return $plugin->deactivate_storage($storeid, $scfg, {});
}

sub storage_info {
    my ($cfg) = @_;
    my $info = {};
    for my $storeid (keys %{ $cfg->{ids} }) {
        my ($scfg, $plugin) = _of($cfg, $storeid);
        my ($total, $avail, $used, $active) = eval {
            activate_storage($cfg, $storeid);
            $plugin->status($storeid, $scfg, {});
        };
        warn $@ if $@;
        $info->{$storeid} = { total => $total // 0, avail => $avail // 0, used => $used // 0, active => $active // 0 };
    }
    return $info;
}

sub vdisk_alloc {
    my ($cfg, $storeid, $vmid, $format, $name, $size_kib) = @_;
    activate_storage($cfg, $storeid);
    my ($scfg, $plugin) = _of($cfg, $storeid);
    return "$storeid:" . $plugin->alloc_image($storeid, $scfg, $vmid, $format // 'raw', $name, $size_kib);
}

sub vdisk_list {
    my ($cfg, $storeid, $vmid) = @_;
    activate_storage($cfg, $storeid);
    my ($scfg, $plugin) = _of($cfg, $storeid);
    return { $storeid => [ sort { $a->{volid} cmp $b->{volid} } @{ $plugin->list_images($storeid, $scfg, $vmid) } ] };
}

sub vdisk_clone {
    my ($cfg, $volid, $vmid, $snap) = @_;
    my ($storeid, $volname) = parse_volume_id($volid);
    my ($scfg, $plugin) = _of($cfg, $storeid);
    activate_storage($cfg, $storeid);
    return "$storeid:" . $plugin->clone_image($scfg, $storeid, $volname, $vmid, $snap);
}

sub vdisk_create_base {
    my ($cfg, $volid) = @_;
    my ($storeid, $volname) = parse_volume_id($volid);
    my ($scfg, $plugin) = _of($cfg, $storeid);
    return "$storeid:" . $plugin->create_base($storeid, $scfg, $volname);
}

sub vdisk_free {
    my ($cfg, $volid) = @_;
    my ($storeid, $volname) = parse_volume_id($volid);
    my ($scfg, $plugin) = _of($cfg, $storeid);
    my ($is_base, $format) = ($plugin->parse_volname($volname))[ 5, 6 ];
    $plugin->free_image($storeid, $scfg, $volname, $is_base, $format);
    return;
}

sub rename_volume {
    my ($cfg, $volid, $vmid, $name) = @_;
    my ($storeid, $volname) = parse_volume_id($volid);
    my ($scfg, $plugin) = _of($cfg, $storeid);
    return $plugin->rename_volume($scfg, $storeid, $volname, $vmid, $name);
}

sub activate_volumes {
    my ($cfg, $volids, $snapname) = @_;
    for my $volid (@$volids) {
        my ($storeid, $volname) = parse_volume_id($volid);
        my ($scfg, $plugin) = _of($cfg, $storeid);
        $plugin->activate_volume($storeid, $scfg, $volname, $snapname, {});
    }
    return;
}

sub path {
    my ($cfg, $volid, $snapname) = @_;
    my ($storeid, $volname) = parse_volume_id($volid);
    my ($scfg, $plugin) = _of($cfg, $storeid);
    my ($path, $owner, $vtype) = $plugin->path($scfg, $volname, $storeid, $snapname);
    return wantarray ? ($path, $owner, $vtype) : $path;
}

sub qemu_blockdev_options {
    my ($cfg, $volid, $machine, $options) = @_;
    my ($storeid, $volname) = parse_volume_id($volid);
    my ($scfg, $plugin) = _of($cfg, $storeid);
    return $plugin->qemu_blockdev_options($scfg, $storeid, $volname, $machine, $options);
}

sub volume_snapshot_rollback {
    my ($cfg, $volid, $snap) = @_;
    volume_rollback_is_possible($cfg, $volid, $snap);
    return _call('volume_snapshot_rollback', $cfg, $volid, $snap);
}

sub _call {
    my ($method, $cfg, $volid, @more) = @_;
    my ($storeid, $volname) = parse_volume_id($volid);
    my ($scfg, $plugin) = _of($cfg, $storeid);
    return $plugin->$method($scfg, $storeid, $volname, @more);
}

sub volume_snapshot             { return _call('volume_snapshot',             @_) }
sub volume_snapshot_delete      { return _call('volume_snapshot_delete',      @_) }
sub volume_rollback_is_possible { return _call('volume_rollback_is_possible', @_) }
sub volume_snapshot_info        { return _call('volume_snapshot_info',        @_) }
sub volume_resize               { return _call('volume_resize',               @_) }
sub volume_size_info            { return _call('volume_size_info',            @_) }

sub volume_has_feature {
    my ($cfg, $feature, $volid, $snap, $running, $opts) = @_;
    my ($storeid, $volname) = parse_volume_id($volid);
    my ($scfg, $plugin) = _of($cfg, $storeid);
    return $plugin->volume_has_feature($scfg, $feature, $storeid, $volname, $snap, $running, $opts);
}

1;
