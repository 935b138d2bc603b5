package PVE::Storage::Plugin;

# Stands in for the base class of Proxmox VE's storage plugins: what it does with raw disks in folders, the
# same signatures, the same words where a plugin could depend on them. Written from its published interface.

use strict;
use warnings;

use Encode ();
use File::Basename qw(basename dirname);
use File::Path qw(make_path);
use JSON ();

use PVE::Tools qw(run_command);

our @SHARED_STORAGE = qw(nfs cifs rbd);

my $types = {};

sub register {
    my ($class) = @_;
    $types->{ $class->type() } = $class;
    return;
}

sub lookup {
    my ($class, $type) = @_;
    return $types->{$type} // die "unknown section type '$type'\n";
}

# Every property has one owner.
sub init {
    my $owner = {};
    for my $class (values %$types) {
        for my $name (keys %{ $class->properties() }) {
            die "duplicate property '$name'\n" if $owner->{$name};
            $owner->{$name} = $class;
        }
    }
    return;
}

sub properties {
    return {};
}

sub check_config {
    my ($class, $storeid, $config, $create) = @_;
    my $options = $class->options();
    for my $name (keys %$config) {
        die "unexpected property '$name'\n" if $name !~ m/^(type|shared)$/ && !$options->{$name};
    }
    for my $name (sort keys %$options) {
        next if !$create || $options->{$name}->{optional} || defined($config->{$name});
        die "missing value for required option '$name'\n";
    }
    return {%$config};
}

sub on_add_hook    { return }
sub on_update_hook { return }
sub on_delete_hook { return }

sub cluster_lock_storage {
    my ($class, $storeid, $shared, $timeout, $code, @more) = @_;
    return $code->(@more);
}

sub parse_name {
    my ($name) = @_;
    return ($1, $3, $2) if $name =~ m!^((base-)?[^/\s]+\.(raw|qcow2|vmdk|subvol))$!;
    die "unable to parse volume filename '$name'\n";
}

sub parse_volname {
    my ($class, $volname) = @_;
    if ($volname =~ m!^(\d+)/(\S+)$!) {
        my ($vmid, $file) = ($1, $2);
        my ($name, $format, $is_base) = parse_name($file);
        return ('images', $name, $vmid, undef, undef, $is_base, $format);
    }
    return ('iso', $1, undef, undef, undef, undef, 'raw') if $volname =~ m!^iso/([^/]+\.(?:iso|img))$!i;
    die "unable to parse directory volume name '$volname'\n";
}

my $folders = { images => 'images', rootdir => 'private', iso => 'template/iso', vztmpl => 'template/cache' };

sub get_subdir {
    my ($class, $scfg, $vtype) = @_;
    die "unknown vtype '$vtype'\n" if !$folders->{$vtype};
    return "$scfg->{path}/$folders->{$vtype}";
}

sub filesystem_path {
    my ($class, $scfg, $volname, $snapname) = @_;
    my ($vtype, $name, $vmid, undef, undef, undef, $format) = $class->parse_volname($volname);
    die "can't snapshot this image format\n" if defined($snapname) && $format !~ m/^(qcow2|qed)$/;
    my $folder = $class->get_subdir($scfg, $vtype);
    $folder .= "/$vmid" if $vtype eq 'images';
    return wantarray ? ("$folder/$name", $vmid, $vtype) : "$folder/$name";
}

sub path {
    my ($class, $scfg, $volname, $storeid, $snapname) = @_;
    return $class->filesystem_path($scfg, $volname, $snapname);
}

sub file_size_info {
    my ($path, $timeout, $format) = @_;
    open(my $said, '-|', 'qemu-img', 'info', '--output=json', '-f', $format, $path) or die "qemu-img: $!\n";
    my $info = do { local $/ = undef; JSON::decode_json(<$said> || '{}') };
    close($said);
    my ($size, $used) = @$info{qw(virtual-size actual-size)};
    return wantarray ? ($size, $format, $used) : $size;
}

sub volume_size_info {
    my ($class, $scfg, $storeid, $volname, $timeout) = @_;
    return file_size_info(scalar $class->filesystem_path($scfg, $volname), $timeout, 'raw');
}

sub list_images {
    my ($class, $storeid, $scfg, $vmid, $vollist) = @_;
    my $images = $class->get_subdir($scfg, 'images');
    my @found;
    for my $path (glob("$images/[0-9][0-9]*/*")) {
        my ($file, $owner, $name) = $path =~ m!^(/.+/(\d+)/([^/]+\.raw))$! or next;
        next if !$vollist && defined($vmid) && $owner ne $vmid;
        my ($size, $format, $used) = file_size_info($file, undef, 'raw');
        push @found, { volid => "$storeid:$owner/$name", format => $format, size => $size, vmid => $owner, used => $used };
    }
    return \@found;
}

sub find_free_diskname {
    my ($class, $storeid, $scfg, $vmid, $format) = @_;
    my %taken = map { $_->{volid} =~ m/(?:vm|base)-\Q$vmid\E-disk-(\d+)\.raw/ ? ($1 => 1) : () }
        @{ $class->list_images($storeid, $scfg, $vmid) };
    my ($free) = grep { !$taken{$_} } 0 .. 1023;
    return "vm-$vmid-disk-$free.$format";
}

sub alloc_image {
    my ($class, $storeid, $scfg, $vmid, $format, $name, $size_kib) = @_;
    my $folder = $class->get_subdir($scfg, 'images') . "/$vmid";
    make_path($folder);
    $name ||= $class->find_free_diskname($storeid, $scfg, $vmid, $format, 1);
    die "disk image '$folder/$name' already exists\n" if -e "$folder/$name";
    run_command([ '/usr/bin/qemu-img', 'create', '-q', '-f', $format, "$folder/$name", "${size_kib}K" ]);
    return "$vmid/$name";
}

sub free_image {
    my ($class, $storeid, $scfg, $volname, $is_base, $format) = @_;
    my $path = $class->filesystem_path($scfg, $volname);
    if (!-f $path) {
        warn "disk image '$path' does not exist\n";
        return;
    }
    unlink($path) || die "unlink '$path' failed - $!\n";
    rmdir(dirname($path));
    return;
}

sub volume_resize {
    my ($class, $scfg, $storeid, $volname, $size, $running, $snapname) = @_;
    return 1 if $running;
    my $path = $class->filesystem_path($scfg, $volname, $snapname);
    run_command([ '/usr/bin/qemu-img', 'resize', '-q', '-f', 'raw', $path, $size ]);
    return;
}

sub rename_volume {
    my ($class, $scfg, $storeid, $volname, $vmid, $name) = @_;
    my $from = $class->filesystem_path($scfg, $volname);
    $name ||= $class->find_free_diskname($storeid, $scfg, $vmid, 'raw', 1);
    my $folder = $class->get_subdir($scfg, 'images') . "/$vmid";
    make_path($folder);
    die "target volume '$name' already exists\n" if -e "$folder/$name";
    rename($from, "$folder/$name") || die "rename '$from' to '$folder/$name' failed - $!\n";
    return "$storeid:$vmid/$name";
}

sub activate_storage {
    my ($class, $storeid, $scfg) = @_;
    die "unable to activate storage '$storeid' - directory '$scfg->{path}' does not exist or is unreachable\n"
        if !-d $scfg->{path};
    make_path($class->get_subdir($scfg, $_)) for grep { $folders->{$_} } keys %{ $scfg->{content} // {} };
    return;
}

sub activate_volume {
    my ($class, $storeid, $scfg, $volname, $snapname) = @_;
    my $path = $class->filesystem_path($scfg, $volname, $snapname);
    die "volume '$storeid:$volname' does not exist\n" if !-e $path;
    return;
}

sub qemu_blockdev_options {
    my ($class, $scfg, $storeid, $volname, $machine, $options) = @_;
    my ($path) = $class->path($scfg, $volname, $storeid, $options->{'snapshot-name'});
    die "stat for '$path' failed - $!\n" if !-e $path;
    return { driver => 'file', filename => $path };
}

sub status {
    my ($class, $storeid, $scfg) = @_;
    my $df = PVE::Tools::df($scfg->{path}, 2) or return;
    return ($df->{total}, $df->{avail}, $df->{used}, 1);
}

sub get_identity {
    die 'get_identity not implemented for this plugin';
}

1;
