package PVE::APIClient::LWP;

# Of Proxmox VE's module of this name: nothing but its name, for tests against the real storage module.

use strict;
use warnings;

1;
