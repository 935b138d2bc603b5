//! Which files make up which VM: from their paths alone, as hypervisors lay them out
//! (`clients.md`; R-SCOPE-01). Pure.
//!
//! | hypervisor | layout | VM |
//! |---|---|---|
//! | Proxmox VE | `images/ID/…`, `private/ID/…`; `snippets/` files that name the id | the id |
//! | ESXi | a folder with a `.vmx`: everything in it | name of the `.vmx` |
//! | any | a folder at the top with a disk image in it: everything in it | the folder |
//! | libvirt, QEMU | disk images at the top: `NAME.qcow2`, `NAME-1.qcow2`, with `NAME.xml`, `NAME_VARS.fd` … | `NAME` |
//! | XCP-ng | `UUID.vhd` or `UUID.raw`, at the top or in the folder of the repository | each disk by itself: who owns it stands elsewhere |
//!
//! What fits nothing belongs to no VM, until somebody assigns it.

use std::collections::{BTreeMap, BTreeSet};

/// What a file is to its VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileRole {
    /// Holds what the guest has on its disks.
    Disk,
    /// Describes the VM.
    Config,
    /// Settings of the firmware.
    Nvram,
    /// Memory of the guest, or swap for it.
    Memory,
    /// Says who uses the VM.
    Lock,
    /// Anything else.
    Other,
}

const DISKS: [&str; 8] = ["raw", "qcow2", "img", "vmdk", "vhd", "vhdx", "vdi", "qed"];
const CONFIGS: [&str; 8] = ["vmx", "vmxf", "vmsd", "xml", "conf", "yaml", "yml", "ovf"];
const MEMORIES: [&str; 4] = ["vswp", "vmem", "vmsn", "vmss"];

fn extension(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, extension)| extension)
}

/// What a file of this name is.
pub fn role_of(name: &str) -> FileRole {
    let lower = name.to_ascii_lowercase();
    let is = |of: &[&str]| of.contains(&extension(&lower));
    match () {
        () if lower.starts_with(".lck") || lower.ends_with(".lck") => FileRole::Lock,
        () if is(&["nvram"]) || lower.ends_with("_vars.fd") || lower.contains("efidisk") => FileRole::Nvram,
        () if is(&MEMORIES) || (lower.contains("-state-") && is(&["raw"])) => FileRole::Memory,
        () if is(&CONFIGS) => FileRole::Config,
        () if is(&DISKS) => FileRole::Disk,
        () => FileRole::Other,
    }
}

fn is_disk(name: &str) -> bool {
    role_of(name) == FileRole::Disk
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.len() == 5
        && groups.iter().zip([8, 4, 4, 4, 12]).all(|(group, len)| group.len() == len)
        && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// The folder and the name of a path.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// What is known of all paths before any of them is judged.
struct Layout<'a> {
    /// Folders with a `.vmx`, and the VM's name.
    vmx: BTreeMap<&'a str, &'a str>,
    /// Folders at the top with a disk image anywhere in them.
    with_disks: BTreeSet<&'a str>,
    /// Stems of disk images at the top.
    stems: BTreeSet<&'a str>,
}

impl<'a> Layout<'a> {
    fn of(paths: &[&'a str]) -> Layout<'a> {
        let mut layout = Layout { vmx: BTreeMap::new(), with_disks: BTreeSet::new(), stems: BTreeSet::new() };
        for path in paths {
            let (folder, name) = split(path);
            if extension(name) == "vmx" && !folder.is_empty() {
                layout.vmx.entry(folder).or_insert(stem(name));
            }
            match path.split_once('/') {
                Some((top, _)) if is_disk(name) => drop(layout.with_disks.insert(top)),
                None if is_disk(name) && !is_uuid(stem(name)) => drop(layout.stems.insert(stem(name))),
                _ => {}
            }
        }
        layout
    }

    /// The VM of a path.
    fn vm_of(&self, path: &'a str) -> Option<&'a str> {
        let parts: Vec<&str> = path.split('/').collect();
        let (folder, name) = split(path);
        match parts[..] {
            ["images" | "private", id, _, ..] if is_number(id) => return Some(id),
            ["snippets", name] => return id_in(name),
            // Backups, images and templates of Proxmox are nobody's.
            ["images" | "private" | "dump" | "template" | "import", ..] => return None,
            _ => {}
        }
        // The nearest folder above that has a configuration of ESXi.
        let mut above = folder;
        while !above.is_empty() {
            if let Some(vm) = self.vmx.get(above) {
                return Some(vm);
            }
            above = split(above).0;
        }
        match parts[..] {
            [disk] | [_, disk] if is_uuid(stem(disk)) && is_disk(disk) => Some(stem(disk)),
            [top, _, ..] if is_uuid(top) => None,
            [top, _, ..] => self.with_disks.get(top).copied(),
            _ => self.top_level(name),
        }
    }

    /// `web`, for `web.qcow2`, and for `web-1.qcow2` and `web_VARS.fd` if there is a `web`.
    fn top_level(&self, name: &'a str) -> Option<&'a str> {
        let stem = stem(name);
        let owner = |at: usize| self.stems.get(&stem[..at]).copied();
        let cuts = stem.char_indices().filter(|(_, c)| "-_.".contains(*c)).map(|(at, _)| at);
        cuts.chain([stem.len()]).find_map(owner)
    }
}

/// The number of a VM that a snippet's name holds, if it holds one.
fn id_in(name: &str) -> Option<&str> {
    name.split(|c: char| !c.is_ascii_digit()).find(|digits| digits.len() >= 3 && digits.len() <= 9)
}

/// The VM of each path, if it has one. Paths are those of one datastore, from its top.
pub fn recognise<'a>(paths: &[&'a str]) -> Vec<Option<&'a str>> {
    let layout = Layout::of(paths);
    let known: Vec<Option<&str>> = paths.iter().map(|path| layout.vm_of(path)).collect();
    // A snippet belongs to a VM that is there.
    let with_folder: BTreeSet<&str> =
        paths.iter().zip(&known).filter(|(path, _)| !path.starts_with("snippets/")).filter_map(|(_, vm)| *vm).collect();
    known.into_iter().map(|vm| vm.filter(|vm| with_folder.contains(vm))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vms(paths: &[&'static str]) -> Vec<Option<&'static str>> {
        recognise(paths)
    }

    #[test]
    fn proxmox_by_number() {
        let paths = [
            "images/100/vm-100-disk-0.raw",
            "images/100/vm-100-disk-1.qcow2",
            "images/100/vm-100-state-before.raw",
            "images/101/base-101-disk-0.raw",
            "private/200/vm-200-disk-0.raw",
            "snippets/100-user.yaml",
            "snippets/999.yaml",
            "dump/vzdump-qemu-100-2026_01_01.vma.zst",
            "template/iso/debian.iso",
        ];
        let expected = [Some("100"), Some("100"), Some("100"), Some("101"), Some("200"), Some("100"), None, None, None];
        assert_eq!(vms(&paths), expected);
        assert_eq!(role_of("vm-100-state-before.raw"), FileRole::Memory);
    }

    #[test]
    fn esxi_by_folder_with_everything_in_it() {
        let paths = [
            "erp/erp.vmx",
            "erp/erp.vmdk",
            "erp/erp-flat.vmdk",
            "erp/erp-000001-delta.vmdk",
            "erp/erp.nvram",
            "erp/erp-1a2b.vswp",
            "erp/vmware.log",
            "erp/.lck-3f0a",
            "erp/logs/vmware-1.log",
            "renamed/mail.vmx",
            "renamed/mail.vmdk",
        ];
        let expected: Vec<_> = [Some("erp"); 9].into_iter().chain([Some("mail"); 2]).collect();
        assert_eq!(vms(&paths), expected);
        let roles = [FileRole::Nvram, FileRole::Memory, FileRole::Other, FileRole::Lock];
        assert_eq!(["erp.nvram", "erp-1a2b.vswp", "vmware.log", ".lck-3f0a"].map(role_of), roles);
    }

    #[test]
    fn libvirt_by_name_and_folders_by_disk() {
        let paths = [
            "web.qcow2",
            "web-1.qcow2",
            "web_VARS.fd",
            "web.xml",
            "webshop.img",
            "notes.txt",
            "db-1/disk.raw",
            "db-1/seed/user-data",
            "iso/readme.txt",
        ];
        let web = Some("web");
        let expected = [web, web, web, web, Some("webshop"), None, Some("db-1"), Some("db-1"), None];
        assert_eq!(vms(&paths), expected);
    }

    #[test]
    fn xcp_ng_disks_stand_alone() {
        let paths = [
            "1f9d6c2e-94a1-4a5e-8c57-0b9d5b0e7a11.vhd",
            "aaaaaaaa-0000-1111-2222-bbbbbbbbbbbb/2f9d6c2e-94a1-4a5e-8c57-0b9d5b0e7a12.vhd",
            "aaaaaaaa-0000-1111-2222-bbbbbbbbbbbb/sm-hardlink.conf",
        ];
        let expected =
            [Some("1f9d6c2e-94a1-4a5e-8c57-0b9d5b0e7a11"), Some("2f9d6c2e-94a1-4a5e-8c57-0b9d5b0e7a12"), None];
        assert_eq!(vms(&paths), expected);
    }
}
