#!/usr/bin/perl -T

# The storage plugin, loaded by PVE::Storage (the real one or its stand-in) and used as Proxmox VE uses it,
# against a server that runs. How to reach that is in the environment: see tests/e2e/75-proxmox.

use strict;
use warnings;

use File::Temp ();
use JSON ();
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

my %at;

BEGIN {
    for my $name (qw(ADDRESS NFS_PORT MOUNT_PORT API FINGERPRINT TOKEN VIEWER WORK STORE VMHOLD REAL)) {
        ($at{$name}) = ($ENV{"AT_$name"} // '') =~ m/^(.*)$/;
    }
    delete @ENV{qw(IFS CDPATH ENV BASH_ENV)};
    $ENV{PATH} = '/usr/sbin:/usr/bin:/sbin:/bin';
}

use PVE::Storage;

my $plugin = PVE::Storage::Plugin->lookup('vmhold');
my $cfg;

# -- what this machine cannot do, and what tests need

sub mounted {
    my ($path) = @_;
    open(my $mounts, '<', '/proc/mounts') or die "no mounts: $!\n";
    my $found = grep { (split / /)[1] eq $path } <$mounts>;
    close($mounts);
    return $found ? $path : undef;
}

my @options_seen;

# Kernels of test machines know no NFS: a FUSE file system over an NFS library takes its place.
sub mount_instead {
    my ($server, $export, $path, $options) = @_;
    push @options_seen, $options;
    my $url = "nfs://$server$export?nfsport=$at{NFS_PORT}&mountport=$at{MOUNT_PORT}";
    my $pid = fork() // die "fork: $!\n";
    if (!$pid) {
        open(STDIN,  '<',  '/dev/null');
        open(STDOUT, '>>', "$at{WORK}/mount.log");
        open(STDERR, '>>', "$at{WORK}/mount.log");
        exec("$at{WORK}/mount", $url, $path) or exit(127);
    }
    for (1 .. 100) {
        return if mounted($path);
        sleep(0.1);
    }
    die "mount error: $url\n";
}

{
    no warnings qw(redefine once);
    *PVE::Storage::NFSPlugin::nfs_mount      = \&mount_instead;
    *PVE::Storage::NFSPlugin::nfs_is_mounted = sub { return mounted($_[2]) };
}

# What a command of vmhold answers.
sub vmhold {
    my (@words) = @_;
    open(my $said, '-|', $at{VMHOLD}, @words, '--json', '--dir', $at{STORE}) or die "vmhold: $!\n";
    my $text = do { local $/ = undef; <$said> };
    close($said);
    return JSON->new->utf8->decode($text)->{data};
}

sub fill {
    my ($volid, $letter, $mib) = @_;
    my $path = PVE::Storage::path($cfg, $volid);
    open(my $file, '+<', $path) or die "$path: $!\n";
    print {$file} $letter x (1 << 20) for 1 .. ($mib // 1);
    close($file) or die "$path: $!\n";
    return;
}

# The letter that a volume is full of, from its first MiB.
sub letter {
    my ($path) = @_;
    open(my $file, '<', $path) or die "$path: $!\n";
    read($file, my $bytes, 1 << 20);
    close($file);
    my %letters = map { $_ => 1 } split(//, $bytes);
    return join('', sort keys %letters);
}

sub holds {
    my ($volid) = @_;
    return letter(scalar PVE::Storage::path($cfg, $volid));
}

sub fails(&$$) {
    my ($code, $words, $what) = @_;
    my $ended = eval { $code->(); 1 };
    return fail("$what: it did not fail") if $ended;
    return like($@, $words, $what);
}

sub snapshots_in_vmhold {
    my ($vm) = @_;
    return join(' ', sort map { $_->{name} } @{ vmhold('vm', 'snapshot', 'list', "demo/$vm") // [] });
}

# Another task of Proxmox VE is another process.
sub in_another_task {
    my ($code) = @_;
    my $pid = fork() // die "fork: $!\n";
    if (!$pid) {
        my $ended = eval { $code->(); 1 };
        warn $@ if !$ended;
        POSIX::_exit($ended ? 0 : 1);
    }
    waitpid($pid, 0);
    return $? == 0;
}

sub add {
    my ($storeid, $token, %of) = @_;
    my $wish = {
        type          => 'vmhold',
        server        => $at{ADDRESS},
        export        => '/demo',
        content       => 'images,rootdir,iso',
        options       => "vers=3,hard,port=$at{NFS_PORT},mountport=$at{MOUNT_PORT}",
        fingerprint   => Vmhold::Client::written($at{FINGERPRINT}),
        'vmhold-api'  => $at{API},
        %of,
    };
    my $checked = $plugin->check_config($storeid, $wish, 1, 1);
    $checked->{content} = { map { $_ => 1 } split(/,/, $wish->{content}) };
    $checked->{shared} = 1;
    $plugin->on_add_hook($storeid, $checked, defined($token) ? (password => $token) : ());
    return $checked;
}

# -- tests, in the order of a first day

sub is_loaded {
    is($plugin, 'PVE::Storage::Custom::VmholdPlugin', 'PVE::Storage finds and registers the plugin');
    is($plugin->api(), PVE::Storage::APIVER(), 'it speaks the version of the storage API that runs');
    ok((grep { $_ eq 'vmhold' } @PVE::Storage::Plugin::SHARED_STORAGE), 'its storages are shared');
    my ($valid) = @{ $plugin->plugindata()->{format} };
    is_deeply($valid, { raw => 1 }, 'raw disks only');
    return;
}

sub is_added {
    my $file = '/etc/pve/priv/storage/vh.pw';
    my $wrong = 'AB:' x 31 . 'AB';
    fails { add('vh', undef) } qr/a token is needed/, 'no token';
    fails { add('vh', $at{TOKEN}, fingerprint => $wrong) } qr/is not the known one.*fingerprint is \Q${\Vmhold::Client::written($at{FINGERPRINT})}\E/s,
        'another fingerprint: both are told';
    fails { add('vh', 'vmhold_wrong') } qr/VH\d+/, 'a wrong token';
    fails { add('vh', $at{TOKEN}, export => '/none') } qr/none.*VH\d+/, 'no such datastore';
    fails { add('vh', $at{TOKEN}, export => '/a/b') } qr/export of a vmhold datastore/, 'an export that is none';
    fails { add('vh', $at{TOKEN}, options => 'vers=4.2') } qr/NFS 3/, 'another version of NFS';
    fails { add('vh', $at{TOKEN}, 'vmhold-api' => '127.0.0.1:1') } qr/cannot be reached/, 'no API';
    ok(!-e $file, 'no token is left of what was not added');
    my $scfg = add('vh', $at{TOKEN});
    is((stat($file))[2] & 0777, 0600, 'the token lies in a file that only root may read');
    ok(!grep({ ref($_) eq '' && m/\Q$at{TOKEN}\E/ } values %$scfg), 'and nowhere in the configuration');
    $cfg = { ids => { vh => $scfg } };
    return;
}

sub is_active {
    is(($plugin->status('vh', $cfg->{ids}->{vh}, {}))[0], undef, 'not mounted, it has no numbers');
    PVE::Storage::activate_storage($cfg, 'vh');
    ok(mounted('/mnt/pve/vh'), 'it is mounted where NFS storages are');
    like($options_seen[-1], qr/^vers=3,hard,.*lookupcache=positive$/, 'with the options, and names are looked up again');
    my $info = PVE::Storage::storage_info($cfg)->{vh};
    ok($info->{active} && $info->{total} > 1 << 20 && $info->{avail} <= $info->{total}, 'it is active, with numbers');
    my $identity = $plugin->get_identity($cfg->{ids}->{vh}, 'vh');
    like($identity, qr/^[0-9a-f]{16}-\d+$/, 'it has an identity');
    return $identity;
}

sub disks {
    my $first = PVE::Storage::vdisk_alloc($cfg, 'vh', 100, 'raw', undef, 2048);
    is($first, 'vh:100/vm-100-disk-0.raw', 'a disk is allocated');
    is(scalar PVE::Storage::volume_size_info($cfg, $first, 5), 2048 * 1024, 'of the right size');
    my $second = PVE::Storage::vdisk_alloc($cfg, 'vh', 100, 'raw', undef, 2048);
    my $odd = PVE::Storage::vdisk_alloc($cfg, 'vh', 100, 'raw', 'vm-100-a%20b#c?d&e=f+g@h.raw', 1024);
    my @listed = map { $_->{volid} } @{ PVE::Storage::vdisk_list($cfg, 'vh', 100)->{vh} };
    is_deeply(\@listed, [ sort { lc($a) cmp lc($b) } $first, $second, $odd ], 'all are listed');
    is(PVE::Storage::qemu_blockdev_options($cfg, $first, '9.0', {})->{driver}, 'file', 'QEMU opens a file');
    fill($first, 'a', 2), fill($second, 'b', 2), fill($odd, 'c');
    return ($first, $second, $odd);
}

sub features {
    my ($volid) = @_;
    my $has = sub { PVE::Storage::volume_has_feature($cfg, $_[0], $volid, $_[1], 0, $_[2]) ? 1 : 0 };
    my @said = map { $has->(@$_) } ['snapshot'], ['template'], [ 'copy', 'x' ], [ 'clone', 'x' ], ['rename'], ['clone'],
        [ 'clone', 'x', { valid_target_formats => ['qcow2'] } ], ['replicate'];
    is_deeply(\@said, [ 1, 1, 1, 1, 1, 0, 0, 0 ], 'what it can do, and what not');
    is($plugin->volume_qemu_snapshot_method('vh', $cfg->{ids}->{vh}, '100/vm-100-disk-0.raw'), 'storage',
        'snapshots of running VMs are the storage\'s');
    return;
}

sub snapshots {
    my @disks = @_;
    PVE::Storage::volume_snapshot($cfg, $_, 'before') for @disks;
    is(snapshots_in_vmhold(100), 'pve:before', 'three disks, one snapshot, so one point');
    fails { PVE::Storage::volume_snapshot($cfg, $disks[0], 'before') } qr/exists already/, 'the same disk again is refused';
    ok(!in_another_task(sub { PVE::Storage::volume_snapshot($cfg, $disks[1], 'before') }),
        'a later task is not given what is older than it');
    my ($storeid, $volname) = PVE::Storage::parse_volume_id($disks[0]);
    my $info = $plugin->volume_snapshot_info($cfg->{ids}->{vh}, $storeid, $volname);
    is_deeply([ keys %$info ], ['before'], 'it is told');
    is($info->{before}->{'virtual-size'}, 2048 * 1024, 'with the size of then');
    cmp_ok(abs($info->{before}->{timestamp} - time()), '<', 120, 'and with its time');
    return;
}

sub rollback {
    my @disks = @_;
    fill($disks[0], 'x', 2), fill($disks[1], 'y', 2), fill($disks[2], 'z');
    PVE::Storage::volume_resize($cfg, $disks[1], 4096 * 1024, 0);
    is(scalar PVE::Storage::volume_size_info($cfg, $disks[1], 5), 4096 * 1024, 'a disk grows');
    PVE::Storage::volume_snapshot($cfg, $_, 'later') for @disks;
    fails { PVE::Storage::volume_snapshot_rollback($cfg, $disks[0], 'none') } qr/holds no disk/, 'back to nothing is refused';
    PVE::Storage::volume_snapshot_rollback($cfg, $disks[0], 'before');
    is(join('', map { holds($_) } @disks), 'ayz', 'one disk goes back, the others stay');
    PVE::Storage::volume_snapshot_rollback($cfg, $_, 'before') for @disks[ 1, 2 ];
    is(join('', map { holds($_) } @disks), 'abc', 'then the others');
    is(scalar PVE::Storage::volume_size_info($cfg, $disks[1], 5), 2048 * 1024, 'with the size of then');
    PVE::Storage::volume_snapshot_rollback($cfg, $_, 'later') for @disks;
    is(join('', map { holds($_) } @disks), 'xyz', 'and forth again: later snapshots are no obstacle');
    return;
}

sub shown_snapshots {
    my @disks = @_;
    PVE::Storage::activate_volumes($cfg, \@disks, 'before');
    my @paths = map { scalar PVE::Storage::path($cfg, $_, 'before') } @disks;
    is(join('', map { letter($_) } @paths), 'abc', 'what a snapshot holds can be read');
    is((stat($paths[0]))[2] & 0222, 0, 'and not written');
    PVE::Storage::activate_volumes($cfg, \@disks, 'before');
    is(scalar @{ PVE::Storage::vdisk_list($cfg, 'vh', 100)->{vh} }, 3, 'it is no disk of the VM');
    PVE::Storage::volume_snapshot_delete($cfg, $_, 'before') for @disks;
    is(snapshots_in_vmhold(100), 'pve:later', 'deleted by the first disk, and by the others without complaint');
    ok(!-e $paths[0] && !-e '/mnt/pve/vh/template/vmhold/100/before', 'what was shown of it is gone');
    PVE::Storage::volume_snapshot($cfg, $disks[0], 'before');
    PVE::Storage::activate_volumes($cfg, [ $disks[0] ], 'before');
    is(letter(scalar PVE::Storage::path($cfg, $disks[0], 'before')), 'x', 'one of that name again shows what it holds');
    PVE::Storage::volume_snapshot_delete($cfg, $disks[0], 'before');
    return;
}

sub clones {
    my @disks = @_;
    my $clone = PVE::Storage::vdisk_clone($cfg, $disks[2], 101, 'later');
    is($clone, 'vh:101/vm-101-disk-0.raw', 'a disk with an odd name is cloned from a snapshot');
    is(holds($clone), 'z', 'it holds what the snapshot holds');
    fill($clone, 'w');
    is(holds($clone) . holds($disks[2]), 'wz', 'and goes its own way');
    fails { PVE::Storage::vdisk_clone($cfg, $disks[0], 101) } qr/only a template or a snapshot/, 'not from a disk in use';

    my $model = PVE::Storage::vdisk_alloc($cfg, 'vh', 102, 'raw', undef, 1024);
    fill($model, 'm');
    my $base = PVE::Storage::vdisk_create_base($cfg, $model);
    is($base, 'vh:102/base-102-disk-0.raw', 'a disk becomes a template');
    is((stat(scalar PVE::Storage::path($cfg, $base)))[2] & 0222, 0, 'that is not written');
    my @copies = map { PVE::Storage::vdisk_clone($cfg, $base, $_) } 103, 103, 104;
    is_deeply(\@copies, [ 'vh:103/vm-103-disk-0.raw', 'vh:103/vm-103-disk-1.raw', 'vh:104/vm-104-disk-0.raw' ], 'cloned thrice');
    fill($copies[1], 'n');
    PVE::Storage::vdisk_free($cfg, $base);
    is(join('', map { holds($_) } @copies), 'mnm', 'clones do without their template');
    is(snapshots_in_vmhold(103), '', 'and no snapshot is left of cloning');
    my $moved = PVE::Storage::rename_volume($cfg, $copies[2], 105);
    is($moved . holds($moved), 'vh:105/vm-105-disk-0.rawm', 'a disk goes to another VM');
    return;
}

sub names_by_hand {
    my @disks = @_;
    vmhold('vm', 'rename', '100', "B\xc3\xbcro system");
    PVE::Storage::volume_snapshot($cfg, $_, 'renamed') for @disks;
    is(snapshots_in_vmhold("B\xc3\xbcro system"), 'pve:later pve:renamed', 'a VM may be called otherwise in vmhold');
    fill($disks[0], 'q', 2);
    PVE::Storage::volume_snapshot_rollback($cfg, $disks[0], 'renamed');
    is(holds($disks[0]), 'x', 'and goes back all the same');
    vmhold('vm', 'rename', "B\xc3\xbcro system", '100');
    return;
}

sub errors {
    my @disks = @_;
    my $scfg = $cfg->{ids}->{vh};
    $plugin->on_update_hook('vh', {}, password => $at{VIEWER});
    fails { PVE::Storage::volume_snapshot($cfg, $disks[0], 'no') } qr/role.*viewer.*operator/s, 'a token of a viewer is refused';
    $plugin->on_update_hook('vh', {}, password => $at{TOKEN});
    my $known = $scfg->{fingerprint};
    $scfg->{fingerprint} = 'AB:' x 31 . 'AB';
    fails { PVE::Storage::volume_snapshot($cfg, $disks[0], 'no') } qr/is not the known one/, 'another certificate: nothing is sent';
    $scfg->{fingerprint} = $known;
    $scfg->{'vmhold-api'} = '127.0.0.1:1';
    my $begun = time();
    fails { PVE::Storage::volume_snapshot($cfg, $disks[0], 'no') } qr/API at 127.0.0.1:1 cannot be reached/, 'no API is told';
    cmp_ok(time() - $begun, '<', 15, 'soon');
    is(holds($disks[0]), 'x', 'and disks are there all the same');
    ok(PVE::Storage::storage_info($cfg)->{vh}->{active}, 'and so is the storage');
    $scfg->{'vmhold-api'} = $at{API};
    unlike(snapshots_in_vmhold(100), qr/pve:no/, 'nothing was taken');
    fails { PVE::Storage::volume_resize($cfg, $disks[0], 1 << 30, 0, 'later') } qr/snapshot cannot be resized/, 'snapshots keep their size';
    return;
}

sub the_end {
    my @disks = @_;
    vmhold('vm', 'snapshot', 'create', '100', 'by-hand');
    vmhold('vm', 'rename', '100', 'mail');
    PVE::Storage::vdisk_free($cfg, $_) for @disks;
    is_deeply(PVE::Storage::vdisk_list($cfg, 'vh', 100)->{vh}, [], 'the disks of a VM are freed');
    is(snapshots_in_vmhold('mail'), 'by-hand', 'and its snapshots with them, but for those that a person took');
    my $again = PVE::Storage::vdisk_alloc($cfg, 'vh', 100, 'raw', undef, 1024);
    PVE::Storage::volume_snapshot($cfg, $again, 'later');
    is(snapshots_in_vmhold('mail'), 'by-hand pve:later', 'so a new VM of that id begins anew');
    return $again;
}

sub server_away {
    my ($volid, $identity) = @_;
    my $scfg = $cfg->{ids}->{vh};
    PVE::Storage::deactivate_storage($cfg, 'vh');
    ok(!mounted('/mnt/pve/vh'), 'it is unmounted');
    vmhold('quickstart', 'break', 'kill');
    my $begun = time();
    fails { PVE::Storage::activate_storage($cfg, 'vh') } qr/not online/, 'the server is away: not online';
    cmp_ok(time() - $begun, '<', 4, 'told within seconds');
    vmhold('quickstart', 'resume', '--background');
    PVE::Storage::activate_storage($cfg, 'vh');
    is($plugin->get_identity($scfg, 'vh'), $identity, 'back, it is the same');
    PVE::Storage::volume_snapshot($cfg, $volid, 'after');
    is(snapshots_in_vmhold('mail'), 'by-hand pve:after pve:later', 'and takes snapshots');
    PVE::Storage::deactivate_storage($cfg, 'vh');
    $plugin->on_delete_hook('vh', $scfg);
    ok(!-e '/etc/pve/priv/storage/vh.pw', 'the token goes with the storage');
    return;
}

is_loaded();
is_added();
my $identity = is_active();
my @disks = disks();
features($disks[0]);
snapshots(@disks);
rollback(@disks);
shown_snapshots(@disks);
clones(@disks);
names_by_hand(@disks);
errors(@disks);
server_away(the_end(@disks), $identity);
done_testing();
