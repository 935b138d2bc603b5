//! Prometheus text (exposition format 0.0.4) of what [`Status`] says. Counters of the
//! data path come from the backend and are appended as they are.

use std::fmt::Write;

use base::meter::Kind;

use crate::activity_book::{VmTotal, part_seconds};
use crate::pool::{DriveState, Pool};
use crate::status::Status;

/// Text under construction; one family after the other.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One sample; an unknown value is left out, never 0.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: Option<f64>) {
        let Some(value) = value else { return };
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: Option<f64>) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The page of `/metrics`.
#[must_use]
pub fn page(status: &Status, vms: &[VmTotal], data_path: &str) -> String {
    let mut page = Page::default();
    page.family("vmhold_health_check", "gauge", "1 while a check fails");
    for finding in &status.health.findings {
        let severity = finding.severity.word();
        let labels =
            [("code", &*finding.code), ("name", &*finding.name), ("severity", severity), ("object", &*finding.object)];
        page.sample("vmhold_health_check", &labels, Some(1.0));
    }
    pools(&mut page, &status.facts.pools);
    let facts = &status.facts;
    page.gauge("vmhold_uptime_seconds", "Time since the start", Some(facts.uptime_seconds));
    page.gauge("vmhold_journal_capacity_bytes", "Size of the journal", float(facts.journal.capacity_bytes));
    page.gauge("vmhold_journal_used_bytes", "Journal not yet destaged", float(facts.journal.used_bytes));
    page.gauge("vmhold_journal_legs", "Journal legs in use", Some(facts.journal.legs_in_use() as f64));
    page.gauge("vmhold_journal_latched", "1 when nothing is acknowledged", Some(f64::from(facts.journal.latched)));
    page.gauge("vmhold_nfs_connections", "Open connections", float(facts.nfs.connections));
    page.gauge("vmhold_memory_resident_bytes", "Resident memory", float(facts.memory.resident_bytes));
    page.gauge("vmhold_cache_bytes", "Cache in use", float(facts.memory.cache_bytes));
    page.family("vmhold_job_progress_ratio", "gauge", "Progress of work going on, 1 is done");
    for job in &facts.jobs {
        let labels = [("kind", &*job.kind), ("object", &*job.object)];
        page.sample("vmhold_job_progress_ratio", &labels, job.progress_ratio());
    }
    of_vms(&mut page, vms);
    page.0.push_str(data_path);
    page.0
}

/// What VMs did since the start, and where the time went. Files of no VM have an empty name.
fn of_vms(page: &mut Page, vms: &[VmTotal]) {
    page.family("vmhold_vm_ops_total", "counter", "Operations of a VM");
    for vm in vms {
        for (kind, op) in [(Kind::Read, "read"), (Kind::Write, "write"), (Kind::Other, "other")] {
            let labels = [("vm", &*vm.vm), ("datastore", &*vm.datastore), ("op", op)];
            page.sample("vmhold_vm_ops_total", &labels, float(Some(vm.kinds[kind as usize].count)));
        }
    }
    page.family("vmhold_vm_bytes_total", "counter", "Payload of a VM");
    for vm in vms {
        for (kind, op) in [(Kind::Read, "read"), (Kind::Write, "write")] {
            let labels = [("vm", &*vm.vm), ("datastore", &*vm.datastore), ("op", op)];
            page.sample("vmhold_vm_bytes_total", &labels, float(Some(vm.kinds[kind as usize].bytes)));
        }
    }
    page.family("vmhold_vm_op_seconds_total", "counter", "Time of the operations of a VM by part");
    for vm in vms {
        for (part, seconds) in part_seconds(&vm.kinds) {
            let labels = [("vm", &*vm.vm), ("datastore", &*vm.datastore), ("part", part)];
            page.sample("vmhold_vm_op_seconds_total", &labels, Some(seconds));
        }
    }
}

fn float(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64)
}

fn pools(page: &mut Page, pools: &[Pool]) {
    page.family("vmhold_pool_space_bytes", "gauge", "Space by kind");
    for pool in pools {
        for (kind, value) in [("used", pool.used_bytes), ("free", pool.free_bytes), ("reserved", pool.reserved_bytes)] {
            page.sample("vmhold_pool_space_bytes", &[("pool", &pool.name), ("kind", kind)], float(value));
        }
    }
    page.family("vmhold_pool_logical_bytes", "gauge", "What clients wrote and did not delete");
    for pool in pools {
        page.sample("vmhold_pool_logical_bytes", &[("pool", &pool.name)], float(pool.logical_bytes));
    }
    page.family("vmhold_pool_failures_tolerated", "gauge", "Drives that may still be lost");
    for pool in pools {
        let more = pool.failures_tolerated.map(f64::from);
        page.sample("vmhold_pool_failures_tolerated", &[("pool", &pool.name)], more);
    }
    page.family("vmhold_repaired_units_total", "counter", "Units written back after reconstruction");
    for pool in pools {
        page.sample("vmhold_repaired_units_total", &[("pool", &pool.name)], float(pool.repaired_units));
    }
    page.family("vmhold_drive_state", "gauge", "1 for the state a drive is in");
    for drive in pools.iter().flat_map(|pool| &pool.drives) {
        let slot = drive.slot.to_string();
        for (state, word) in [
            (DriveState::Online, "ONLINE"),
            (DriveState::Rebuilding, "REBUILDING"),
            (DriveState::Missing, "MISSING"),
            (DriveState::Failed, "FAILED"),
            (DriveState::Spare, "SPARE"),
        ] {
            let labels = [("pool", &*drive.pool), ("slot", &*slot), ("state", word)];
            page.sample("vmhold_drive_state", &labels, Some(f64::from(drive.state == state)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples::facts;

    #[test]
    fn known_values_are_samples_and_unknown_ones_are_left_out() {
        let mut kinds = <[base::meter::Sums; 3]>::default();
        kinds[Kind::Write as usize].count = 12;
        let vms = [VmTotal { datastore: "demo".into(), vm: "100".into(), kinds }];
        let page = page(&Status::from(facts()), &vms, "vmhold_reads_total 7\n");
        for line in [
            "vmhold_pool_space_bytes{pool=\"flash0\",kind=\"used\"} 3221225472",
            "vmhold_pool_failures_tolerated{pool=\"flash0\"} 2",
            "vmhold_drive_state{pool=\"flash0\",slot=\"8\",state=\"ONLINE\"} 1",
            "vmhold_journal_legs 1",
            "vmhold_reads_total 7",
            "vmhold_vm_ops_total{vm=\"100\",datastore=\"demo\",op=\"write\"} 12",
            "vmhold_vm_op_seconds_total{vm=\"100\",datastore=\"demo\",part=\"mirror\"} 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
        assert!(!page.lines().any(|line| line.starts_with("vmhold_cache_bytes ")), "unknown is not 0");
    }

    #[test]
    fn every_sample_follows_its_type_and_labels_are_escaped() {
        let mut facts = facts();
        facts.pools[0].name = "a\"b\\c".into();
        let page = page(&Status::from(facts), &[], "");
        assert!(page.contains("pool=\"a\\\"b\\\\c\""));
        let mut typed = "";
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                typed = rest.split(' ').next().unwrap();
            } else if !line.starts_with('#') {
                assert!(line.starts_with(typed), "{line} behind the type of {typed}");
            }
        }
    }
}
