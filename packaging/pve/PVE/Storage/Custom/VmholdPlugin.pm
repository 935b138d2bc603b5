package PVE::Storage::Custom::VmholdPlugin;

# Proxmox VE storage on a vmhold datastore. Files are used by NFS, as the stock plugin does, so all that works
# there works here, and goes on working while the API is away; what only the store can do is asked of its API:
#
#   snapshot          all disks of a VM at one point: the first disk's call takes it, those of the other disks
#                     of the same task are part of it
#   rollback          of the disks that Proxmox VE names, and of nothing else of the VM
#   linked clone      of a template or a snapshot: shares blocks, depends on nothing, so it has no parent
#   path of a snapshot  a clone of it below template/vmhold, for full clones and backups of containers; goes
#                     with the snapshot
#
# Snapshots of this plugin are called `pve:NAME` in vmhold. Those that a schedule or a person takes there are
# left alone, and have no part in what happens here.

use strict;
use warnings;

use Errno ();
use File::Basename ();
use File::Path ();
use IO::Socket::IP ();
use Time::HiRes ();
use Time::Local ();

use PVE::Storage::NFSPlugin;
use PVE::Storage::Plugin;
use PVE::Tools qw(file_read_firstline file_set_contents);

use Vmhold::Client;

use base qw(PVE::Storage::NFSPlugin);

# Versions of the storage API that this was written against.
my $API_OLDEST = 10;
my $API_NEWEST = 15;

my $API_PORT          = 8080;
my $CONNECT_SECONDS   = 2;
my $APPEARS_SECONDS   = 10;
my $SNAPSHOT_PREFIX   = 'pve:';
my $SNAPSHOTS_SHOWN   = 'template/vmhold';
my $MOUNT_OPTIONS     = 'vers=3,hard,proto=tcp,timeo=600,retrans=2';
my $PRIVATE_DIRECTORY = '/etc/pve/priv/storage';

# Every node sees the same files.
push @PVE::Storage::Plugin::SHARED_STORAGE, 'vmhold'
    if !grep { $_ eq 'vmhold' } @PVE::Storage::Plugin::SHARED_STORAGE;

# Snapshots that this process has taken: Proxmox VE asks disk by disk, within one task.
my $taken = {};

# -- configuration

sub api {
    my $host = PVE::Storage::APIVER();
    return $host if $host >= $API_OLDEST && $host <= $API_NEWEST;
    return $API_NEWEST;
}

sub type {
    return 'vmhold';
}

sub plugindata {
    my $nfs = PVE::Storage::NFSPlugin::plugindata();
    return {
        content                => [ { %{ $nfs->{content}->[0] } }, { images => 1, rootdir => 1 } ],
        format                 => [ { raw => 1 }, 'raw' ],
        'sensitive-properties' => { password => 1 },
    };
}

sub properties {
    return {
        'vmhold-api' => {
            description => "Address of the API of vmhold, HOST or HOST:PORT, where it is not the server's, port"
                . " $API_PORT.",
            type    => 'string',
            pattern => '(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?',
        },
    };
}

sub options {
    my $options = { %{ PVE::Storage::NFSPlugin::options() } };
    # Only raw disks, which need no room beforehand, at the places by which vmhold knows whose they are.
    delete @$options{qw(format preallocation snapshot-as-volume-chain content-dirs)};
    return {
        %$options,
        fingerprint  => { optional => 0 },
        password     => { optional => 1 },
        'vmhold-api' => { optional => 1 },
    };
}

sub token_file {
    my ($storeid) = @_;
    die "'$storeid' is no name of a storage\n" if $storeid !~ m/^([a-zA-Z][a-zA-Z0-9\-_.]*)$/;
    return "$PRIVATE_DIRECTORY/$1.pw";
}

sub keep_token {
    my ($storeid, $token) = @_;
    die "a token is one word\n" if $token !~ m/^\S+$/;
    mkdir $PRIVATE_DIRECTORY, 0700;
    file_set_contents(token_file($storeid), "$token\n", 0600);
    return;
}

sub forget_token {
    my ($storeid) = @_;
    my $file = token_file($storeid);
    unlink($file) or $!{ENOENT} or warn "cannot remove '$file' - $!\n";
    return;
}

sub on_add_hook {
    my ($class, $storeid, $scfg, %param) = @_;

    my $token = $param{password};
    die "a token is needed: vmhold token create proxmox --role operator, on the server; then --password\n"
        if !defined($token);
    die "'--options' must not ask for another version than NFS 3, which is what vmhold speaks\n"
        if ($scfg->{options} // '') =~ m/(?:^|,)(?:nfs)?vers=(?!3(?:,|$))/;
    keep_token($storeid, $token);
    eval {
        my $name = Vmhold::Client::segment(datastore($scfg));
        client($storeid, $scfg)->get("/v1/datastores/$name");
    };
    if (my $err = $@) {
        forget_token($storeid);
        die $err;
    }
    return;
}

sub on_update_hook {
    my ($class, $storeid, $scfg, %param) = @_;

    return if !exists($param{password});
    defined($param{password}) ? keep_token($storeid, $param{password}) : forget_token($storeid);
    return;
}

sub on_delete_hook {
    my ($class, $storeid, $scfg) = @_;

    forget_token($storeid);
    return;
}

# -- the API of the store

sub client {
    my ($storeid, $scfg) = @_;

    my $token = eval { file_read_firstline(token_file($storeid)) };
    die "storage '$storeid' has no token: pvesm set $storeid --password\n" if !defined($token) || $token eq '';
    my $address = $scfg->{'vmhold-api'} // $scfg->{server};
    $address = "[$address]"          if $address =~ m/^[0-9A-Fa-f:]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*$/;
    $address = "$address:$API_PORT"  if $address !~ m/:\d+$/;
    return Vmhold::Client->new(address => $address, fingerprint => $scfg->{fingerprint}, token => $token);
}

# The datastore is named by its export.
sub datastore {
    my ($scfg) = @_;
    return $1 if ($scfg->{export} // '') =~ m!^/([^/]+)/?$!;
    die "the export of a vmhold datastore is '/' and its name\n";
}

# Path of a disk in its datastore, and the id of the VM whose disk it is.
sub place_of {
    my ($class, $volname) = @_;
    my ($vtype, $name, $vmid, undef, undef, undef, $format) = $class->parse_volname($volname);
    die "'$volname' is no raw disk of a VM\n" if $vtype ne 'images' || $format ne 'raw';
    return ("images/$vmid/$name", $vmid);
}

# Path in the API of the VM that a disk belongs to, and its name there. That is the id, unless somebody gave
# the VM another name or the disk to another VM.
sub vm_of {
    my ($class, $client, $scfg, $volname) = @_;

    my ($path, $vmid) = $class->place_of($volname);
    my $datastore = datastore($scfg);
    my $above     = '/v1/vms/' . Vmhold::Client::segment($datastore);
    my $holds     = sub {
        my ($vm) = @_;
        return $vm->{datastore} eq $datastore && grep { $_->{path} eq $path } @{ $vm->{files} };
    };
    my ($vm) = $client->ask('GET', "$above/$vmid");
    ($vm) = grep { $holds->($_) } @{ $client->get('/v1/vms') } if !$vm || !$holds->($vm);
    die "vmhold sees no VM with the disk '$path' in its datastore '$datastore'\n" if !$vm;
    return ("$above/" . Vmhold::Client::segment($vm->{name}), $vm->{name}, $path);
}

sub name_of_snapshot {
    my ($snap) = @_;
    return "$SNAPSHOT_PREFIX$snap";
}

# What the snapshots of this plugin hold of a disk: by the name that Proxmox VE knows.
sub snapshots_of {
    my ($client, $vm, $path) = @_;

    my $held = $client->get("$vm/snapshot-files?file=" . Vmhold::Client::segment($path));
    my $own  = {};
    for my $one (@$held) {
        $own->{$1} = $one if $one->{snapshot} =~ m/^\Q$SNAPSHOT_PREFIX\E(.+)$/;
    }
    return $own;
}

# -- snapshots

sub volume_snapshot {
    my ($class, $scfg, $storeid, $volname, $snap) = @_;

    my $client = client($storeid, $scfg);
    my ($vm, $vm_name, $path) = $class->vm_of($client, $scfg, $volname);
    my $of_vm = $taken->{"$$ $storeid $vm"} //= {};
    if (!$of_vm->{$snap}) {
        $client->change('POST', "$vm/snapshots", body => { name => name_of_snapshot($snap) });
        $of_vm->{$snap} = {};
    }
    # A snapshot of this name that is older than this task holds other content.
    die "snapshot '$snap' of '$volname' exists already\n" if $of_vm->{$snap}->{$volname}++;
    die "snapshot '$snap' was taken before the disk '$volname' was there\n"
        if !snapshots_of($client, $vm, $path)->{$snap};
    return;
}

sub volume_snapshot_delete {
    my ($class, $scfg, $storeid, $volname, $snap, $running) = @_;

    my $client = client($storeid, $scfg);
    my ($vm, undef, $path) = $class->vm_of($client, $scfg, $volname);
    my $name = name_of_snapshot($snap);
    # The first disk's call has deleted it for all.
    my (undef, $problem) =
        $client->ask('DELETE', "$vm/snapshots/" . Vmhold::Client::segment($name), confirm => $name);
    die Vmhold::Client::message($problem) . "\n"
        if $problem && ($problem->{name} // '') ne 'SNAPSHOT_NOT_FOUND';
    delete $taken->{"$$ $storeid $vm"}->{$snap};
    my (undef, $vmid) = $class->place_of($volname);
    $class->forget_shown("$scfg->{path}/$SNAPSHOTS_SHOWN/$vmid/$snap");
    return;
}

sub volume_rollback_is_possible {
    my ($class, $scfg, $storeid, $volname, $snap, $blockers) = @_;

    my $client = client($storeid, $scfg);
    my ($vm, undef, $path) = $class->vm_of($client, $scfg, $volname);
    die "snapshot '$snap' holds no disk '$volname'\n" if !snapshots_of($client, $vm, $path)->{$snap};
    return 1;
}

sub volume_snapshot_rollback {
    my ($class, $scfg, $storeid, $volname, $snap) = @_;

    my $client = client($storeid, $scfg);
    my ($vm, $vm_name, $path) = $class->vm_of($client, $scfg, $volname);
    my $name = Vmhold::Client::segment(name_of_snapshot($snap));
    my $file = Vmhold::Client::segment($path);
    $client->change('POST', "$vm/snapshots/$name/rollback?file=$file", confirm => $vm_name);
    return;
}

sub volume_snapshot_info {
    my ($class, $scfg, $storeid, $volname) = @_;

    my $client = client($storeid, $scfg);
    my ($vm, undef, $path) = $class->vm_of($client, $scfg, $volname);
    my $held = snapshots_of($client, $vm, $path);
    my $info = {};
    for my $snap (keys %$held) {
        my $one = $held->{$snap};
        $info->{$snap} = {
            id             => "$one->{snapshot}\@$one->{created_at}",
            timestamp      => seconds_of($one->{created_at}),
            'virtual-size' => $one->{size_bytes},
        };
    }
    return $info;
}

# A time as the API writes it, in seconds since 1970.
sub seconds_of {
    my ($at) = @_;
    my @part = $at =~ m/^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d+)?Z$/ or die "'$at' is no time\n";
    return Time::Local::timegm_posix(@part[ 5, 4, 3, 2 ], $part[1] - 1, $part[0] - 1900);
}

sub rename_snapshot {
    my ($class, $scfg, $storeid, $volname, $source_snap, $target_snap) = @_;
    die "snapshots of storage '$storeid' keep their names\n";
}

sub volume_qemu_snapshot_method {
    return 'storage';
}

# The file system of a container is mounted read-only from its snapshot, without its journal being replayed.
sub volume_snapshot_needs_fsfreeze {
    return 1;
}

sub volume_has_feature {
    my ($class, $scfg, $feature, $storeid, $volname, $snapname, $running, $opts) = @_;

    my $features = {
        snapshot   => { current => 1, snap => 1 },
        clone      => { base    => 1, snap => 1 },
        template   => { current => 1 },
        copy       => { base    => 1, current => 1, snap => 1 },
        sparseinit => { base    => 1, current => 1 },
        rename     => { current => 1 },
    };
    my ($vtype, undef, undef, undef, undef, $is_base, $format) = $class->parse_volname($volname);
    return if $vtype ne 'images' || $format ne 'raw';
    my $targets = $opts->{valid_target_formats};
    return 0 if $feature eq 'clone' && $targets && !grep { $_ eq 'raw' } @$targets;
    my $key = $snapname ? 'snap' : $is_base ? 'base' : 'current';
    return $features->{$feature}->{$key} ? 1 : undef;
}

# -- disks

sub create_base {
    my ($class, $storeid, $scfg, $volname) = @_;

    my ($vtype, $name, $vmid, undef, undef, $is_base) = $class->parse_volname($volname);
    die "create_base on wrong vtype '$vtype'\n"      if $vtype ne 'images';
    die "create_base not possible with base image\n" if $is_base;
    my $base = $name;
    $base =~ s/^vm-/base-/;
    my ($from, $to) = map { scalar $class->filesystem_path($scfg, "$vmid/$_") } ($name, $base);
    die "file '$to' already exists\n" if -e $to;
    rename($from, $to) || die "rename '$from' to '$to' failed - $!\n";
    chmod(0444, $to) || warn "cannot protect '$to' - $!\n";
    return "$vmid/$base";
}

sub clone_image {
    my ($class, $scfg, $storeid, $volname, $vmid, $snap) = @_;

    my (undef, undef, undef, undef, undef, $is_base) = $class->parse_volname($volname);
    die "only a template or a snapshot can be cloned so that blocks are shared\n" if !$is_base && !$snap;
    my $client = client($storeid, $scfg);
    my $folder = $class->get_subdir($scfg, 'images') . "/$vmid";
    File::Path::make_path($folder);
    my $name = $class->find_free_diskname($storeid, $scfg, $vmid, 'raw', 1);
    $class->clone_file($client, $scfg, $volname, $snap, "images/$vmid/$name");
    chmod(0666 & ~umask(), "$folder/$name") || warn "cannot set the mode of '$folder/$name' - $!\n";
    return "$vmid/$name";
}

# Has the store make a file that shares the blocks of a disk, or of what a snapshot has of it.
sub clone_file {
    my ($class, $client, $scfg, $volname, $snap, $to) = @_;

    my ($path) = $class->place_of($volname);
    my $wish = { path => $path, to => $to };
    if ($snap) {
        my (undef, $vm_name) = $class->vm_of($client, $scfg, $volname);
        $wish->{snapshot} = { vm => $vm_name, name => name_of_snapshot($snap) };
    }
    $client->change('POST', '/v1/file-clones/' . Vmhold::Client::segment(datastore($scfg)), body => $wish);
    return $class->wait_for("$scfg->{path}/$to");
}

# What the store made itself this client sees as soon as it has looked into the folder again.
sub wait_for {
    my ($class, $path) = @_;
    for my $try (1 .. $APPEARS_SECONDS * 10) {
        return if -e $path;
        Time::HiRes::sleep(0.1);
    }
    die "vmhold made '$path', but it is not seen by NFS: is lookupcache=positive among the mount options?\n";
}

sub free_image {
    my ($class, $storeid, $scfg, $volname, $is_base, $format) = @_;

    my ($vtype, undef, $vmid) = $class->parse_volname($volname);
    my $vm = $vtype eq 'images' ? eval { ($class->vm_of(client($storeid, $scfg), $scfg, $volname))[0] } : undef;
    # A template is protected by its mode; NFS has no flag for it that would have to be taken away.
    my $cleanup = $class->SUPER::free_image($storeid, $scfg, $volname, 0, $format);
    return $cleanup if $vtype ne 'images' || -d $class->get_subdir($scfg, 'images') . "/$vmid";
    $vm //= '/v1/vms/' . Vmhold::Client::segment(datastore($scfg)) . "/$vmid";
    eval { $class->forget_vm($storeid, $scfg, $vm, $vmid) };
    warn "snapshots of VM $vmid may be left in vmhold: $@" if $@;
    return $cleanup;
}

# A VM without disks is gone, and with it the snapshots that Proxmox VE took: the id may come again.
sub forget_vm {
    my ($class, $storeid, $scfg, $vm, $vmid) = @_;

    my $client = client($storeid, $scfg);
    # Somebody may have made disks of other ids this VM's, too.
    my ($there) = $client->ask('GET', $vm);
    return if $there && grep { $_->{path} =~ m!^images/! } @{ $there->{files} };
    my ($all, $problem) = $client->ask('GET', "$vm/snapshots");
    die Vmhold::Client::message($problem) . "\n" if $problem && ($problem->{name} // '') ne 'VM_NOT_FOUND';
    for my $one (grep { $_->{name} =~ m/^\Q$SNAPSHOT_PREFIX\E/ } @{ $all // [] }) {
        my $name = Vmhold::Client::segment($one->{name});
        $client->change('DELETE', "$vm/snapshots/$name", confirm => $one->{name});
    }
    delete $taken->{"$$ $storeid $vm"};
    $class->forget_shown("$scfg->{path}/$SNAPSHOTS_SHOWN/$vmid");
    return;
}

sub volume_resize {
    my ($class, $scfg, $storeid, $volname, $size, $running, $snapname) = @_;

    die "a snapshot cannot be resized\n" if $snapname;
    return $class->SUPER::volume_resize($scfg, $storeid, $volname, $size, $running);
}

# -- paths

sub filesystem_path {
    my ($class, $scfg, $volname, $snapname) = @_;

    die "the place of snapshot '$snapname' is not known without the storage\n" if defined($snapname);
    return $class->SUPER::filesystem_path($scfg, $volname);
}

sub path {
    my ($class, $scfg, $volname, $storeid, $snapname) = @_;

    return $class->filesystem_path($scfg, $volname) if !defined($snapname);
    my ($path, $vmid) = $class->shown($storeid, $scfg, $volname, $snapname);
    return wantarray ? ("$scfg->{path}/$path", $vmid, 'images') : "$scfg->{path}/$path";
}

# Where a snapshot of a disk is shown. The time it was taken is in the path: a later one of the same name is
# never taken for it.
sub shown {
    my ($class, $storeid, $scfg, $volname, $snap) = @_;

    my $client = client($storeid, $scfg);
    my ($vm, undef, $path) = $class->vm_of($client, $scfg, $volname);
    my $held = snapshots_of($client, $vm, $path)->{$snap} or die "snapshot '$snap' holds no disk '$volname'\n";
    my ($at) = $held->{created_at} =~ m/^([0-9TZ:.-]+)$/ or die "snapshot '$snap' has no time\n";
    my ($name, $vmid) = ($class->parse_volname($volname))[ 1, 2 ];
    return ("$SNAPSHOTS_SHOWN/$vmid/$snap/$at/$name", $vmid, $client);
}

sub activate_volume {
    my ($class, $storeid, $scfg, $volname, $snapname, $cache, $hints) = @_;

    return $class->SUPER::activate_volume($storeid, $scfg, $volname, undef, $cache) if !$snapname;
    my ($to, undef, $client) = $class->shown($storeid, $scfg, $volname, $snapname);
    return if -e "$scfg->{path}/$to";
    File::Path::make_path(File::Basename::dirname("$scfg->{path}/$to"));
    $class->clone_file($client, $scfg, $volname, $snapname, $to);
    chmod(0444, "$scfg->{path}/$to") || warn "cannot protect '$to' - $!\n";
    return;
}

sub map_volume {
    my ($class, $storeid, $scfg, $volname, $snapname, $hints) = @_;

    return scalar $class->path($scfg, $volname, $storeid, $snapname);
}

# What is shown of a snapshot may be in use on another node; it goes with the snapshot.
sub deactivate_volume {
    return;
}

sub forget_shown {
    my ($class, $folder) = @_;

    return if !-d $folder;
    File::Path::remove_tree($folder, { error => \my $errors });
    warn "'$folder' cannot be removed\n" if $errors && @$errors;
    rmdir(File::Basename::dirname($folder));
    return;
}

# -- the storage as a whole

sub mount_options {
    my ($scfg) = @_;
    my $options = $scfg->{options} // $MOUNT_OPTIONS;
    # A name that was not there a moment ago may be there now: the store makes files itself.
    return $options =~ m/(?:^|,)lookupcache=/ ? $options : "$options,lookupcache=positive";
}

sub activate_storage {
    my ($class, $storeid, $scfg, $cache) = @_;

    my $with = { %$scfg, options => mount_options($scfg) };
    return $class->SUPER::activate_storage($storeid, $with, $cache);
}

# Whether NFS answers at all. The API is not asked: VMs run without it.
sub check_connection {
    my ($class, $storeid, $scfg) = @_;

    my ($port) = ($scfg->{options} // '') =~ m/(?:^|,)port=(\d+)/;
    my $socket = IO::Socket::IP->new(
        PeerHost => $scfg->{server},
        PeerPort => $port || 2049,
        Timeout  => $CONNECT_SECONDS,
    );
    return $socket ? 1 : 0;
}

sub get_identity {
    my ($class, $scfg, $storeid) = @_;

    my $name = Vmhold::Client::segment(datastore($scfg));
    my $found = client($storeid, $scfg)->get("/v1/datastores/$name");
    return $found->{id} // die "this version of vmhold does not tell which datastore it is\n";
}

1;
