package PVE::Tools;

# Stands in for Proxmox VE's module of this name, as far as storage plugins here use it. Written from its
# published interface.

use strict;
use warnings;

use base 'Exporter';
our @EXPORT_OK = qw(run_command file_read_firstline file_set_contents);

sub run_command {
    my ($command, %of) = @_;
    my $pid = fork() // die "fork: $!\n";
    if (!$pid) {
        open(STDOUT, '>', '/dev/null') if $of{outfunc};
        exec({ $command->[0] } @$command) or exit(127);
    }
    waitpid($pid, 0);
    return 0 if $? == 0;
    die(($of{errmsg} // "command '@$command' failed") . ": exit code " . ($? >> 8) . "\n");
}

sub file_read_firstline {
    my ($path) = @_;
    open(my $file, '<', $path) or return;
    my $line = <$file>;
    close($file);
    return if !defined($line);
    chomp($line);
    return $line =~ m/^(.*)$/ ? $1 : undef;
}

sub file_set_contents {
    my ($path, $data, $mode) = @_;
    my $new = "$path.tmp.$$";
    open(my $file, '>', $new) or die "unable to open file '$new' - $!\n";
    chmod($mode // 0644, $new);
    print {$file} $data or die "unable to write '$new' - $!\n";
    close($file) or die "closing file '$new' failed - $!\n";
    rename($new, $path) or die "close (rename) atomic file '$path' failed: $!\n";
    return;
}

# Numbers in bytes.
sub df {
    my ($path) = @_;
    open(my $said, '-|', 'df', '-B1', '--output=size,used,avail', $path) or return;
    my (undef, $line) = <$said>;
    close($said);
    my ($total, $used, $avail) = ($line // '') =~ m/(\d+)\s+(\d+)\s+(\d+)/ or return;
    return { total => $total, used => $used, avail => $avail };
}

1;
