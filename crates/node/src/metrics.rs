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
    let counts = shard.service.counts();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# TYPE vmhold_nfs_calls_total counter");
    for (name, calls) in PROCEDURES.iter().zip(counts.calls) {
        let _ = writeln!(out, "vmhold_nfs_calls_total{{procedure=\"{name}\"}} {calls}");
    }
    let _ = writeln!(out, "# TYPE vmhold_nfs_call_seconds_total counter");
    for (name, time_ns) in PROCEDURES.iter().zip(counts.time_ns) {
        let _ = writeln!(out, "vmhold_nfs_call_seconds_total{{procedure=\"{name}\"}} {}", time_ns as f64 / 1e9);
    }
    let (engine, raid, door) = (shard.engine.counters(), shard.engine.group().counters(), shard.door.counts());
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
        ("objects_moved_total", engine.objects_moved),
        ("blocks_reclaimed_total", engine.blocks_reclaimed),
        ("stripes_written_total", raid.stripes_written),
        ("stripes_written_degraded_total", raid.stripes_written_degraded),
        ("reads_reconstructed_total", raid.reads_reconstructed),
        ("units_repaired_total", raid.units_repaired),
    ] {
        let _ = writeln!(out, "# TYPE vmhold_{name} counter\nvmhold_{name} {value}");
    }
    out
}
