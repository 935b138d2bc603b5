//! Counters of the data path as Prometheus text.

use std::fmt::Write;

use crate::shard::Shard;

const PROCEDURES: [&str; 22] = [
    "null",
    "getattr",
    "setattr",
    "lookup",
    "access",
    "readlink",
    "read",
    "write",
    "create",
    "mkdir",
    "symlink",
    "mknod",
    "remove",
    "rmdir",
    "rename",
    "link",
    "readdir",
    "readdirplus",
    "fsstat",
    "fsinfo",
    "pathconf",
    "commit",
];

/// Complete families, each with its type.
pub(crate) fn page(shard: &Shard) -> String {
    let mut out = String::new();
    // A site that does not serve has answered nothing.
    let front = shard.front();
    let counts = front.as_ref().map(|front| front.service.counts()).unwrap_or_default();
    let door = front.map(|front| front.door.counts()).unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# TYPE vmhold_nfs_calls_total counter");
    for (name, calls) in PROCEDURES.iter().zip(counts.calls) {
        let _ = writeln!(out, "vmhold_nfs_calls_total{{procedure=\"{name}\"}} {calls}");
    }
    let _ = writeln!(out, "# TYPE vmhold_nfs_call_seconds_total counter");
    for (name, time_ns) in PROCEDURES.iter().zip(counts.time_ns) {
        let _ = writeln!(out, "vmhold_nfs_call_seconds_total{{procedure=\"{name}\"}} {}", time_ns as f64 / 1e9);
    }
    let (engine, raid) = (shard.engine.counters(), shard.engine.group().counters());
    let hedges = shard.engine.group().hedges();
    let journal = shard.engine.journal_status();
    for (name, value) in [
        ("nfs_unserved_calls_total", counts.unserved),
        ("nfs_connections_accepted_total", door.accepted),
        ("nfs_connections_refused_total", door.refused),
        ("nfs_received_bytes_total", door.received_bytes),
        ("nfs_sent_bytes_total", door.sent_bytes),
        ("journal_batches_total", journal.batches),
        ("journal_records_total", journal.records),
        ("blocks_destaged_total", engine.blocks_destaged),
        ("blocks_zero_total", engine.blocks_zero),
        ("blocks_shared_total", engine.blocks_shared),
        ("blocks_compressed_total", engine.blocks_compressed),
        ("stored_bytes_total", engine.stored_bytes),
        ("objects_read_total", engine.objects_read),
        ("cache_hits_total", engine.cache_hits),
        ("pages_read_total", engine.pages_read),
        ("pages_written_total", engine.pages_written),
        ("checkpoints_total", engine.checkpoints),
        ("stripes_cleaned_total", engine.stripes_cleaned),
        ("stripe_tables_written_total", engine.stripe_tables_written),
        ("objects_moved_total", engine.objects_moved),
        ("blocks_reclaimed_total", engine.blocks_reclaimed),
        ("stripes_written_total", raid.stripes_written),
        ("stripes_written_degraded_total", raid.stripes_written_degraded),
        ("reads_reconstructed_total", raid.reads_reconstructed),
        ("units_repaired_total", raid.units_repaired),
        ("late_reads_total", hedges.late),
        ("hedged_reads_total", hedges.hedged),
        ("hedged_reads_won_total", hedges.won),
        ("hedged_reads_over_budget_total", hedges.over_budget),
        ("stripes_rebuilt_total", raid.stripes_rebuilt),
        ("units_rebuilt_total", raid.units_rebuilt),
        ("stripes_read_back_total", engine.stripes_read_back),
    ] {
        let _ = writeln!(out, "# TYPE vmhold_{name} counter\nvmhold_{name} {value}");
    }
    queues(&mut out, shard);
    crate::upkeep::metrics(shard, &mut out);
    crate::pair::checks::metrics(shard, &mut out);
    out
}

/// What the drives did by principal, and how well each keeps its times.
fn queues(out: &mut String, shard: &Shard) {
    let (pool, io) = (&shard.config.pool, crate::io::pool(shard.engine.group()));
    let mut family = |name: &str, kind: &str, value: &dyn Fn(&control::pool::PrincipalIo) -> f64| {
        let _ = writeln!(out, "# TYPE vmhold_drive_{name} {kind}");
        for line in &io.principals {
            let principal = &line.principal;
            let _ = writeln!(out, "vmhold_drive_{name}{{pool=\"{pool}\",principal=\"{principal}\"}} {}", value(line));
        }
    };
    family("requests_total", "counter", &|line| line.requests as f64);
    family("bytes_total", "counter", &|line| line.bytes as f64);
    family("wait_seconds_total", "counter", &|line| line.wait_seconds);
    family("requests_waiting", "gauge", &|line| f64::from(line.waiting));
    family("requests_in_flight", "gauge", &|line| f64::from(line.in_flight));
    let lanes = shard.engine.group().lanes();
    let _ = writeln!(out, "# TYPE vmhold_drive_late_reads_total counter");
    for (slot, lane) in (1..).zip(&lanes) {
        let Some(lane) = lane else { continue };
        let late = lane.punctuality.late;
        let _ = writeln!(out, "vmhold_drive_late_reads_total{{pool=\"{pool}\",slot=\"{slot}\"}} {late}");
    }
}
