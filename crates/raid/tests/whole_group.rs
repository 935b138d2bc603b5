//! The group as its user sees it: stripes in, stripes out, through losses.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod double;

use double::{Rig, check_range, check_stripe, write};
use raid::{GroupState, StripeId};

#[test]
fn what_was_written_is_read_after_opening_again() {
    let rig = Rig::new(7, 1);
    let group = rig.create(10);
    let ids = rig.bench.run(async {
        let segment = group.open_segment().await.unwrap();
        assert_eq!(group.geometry(segment).unwrap().to_string(), "5+2");
        let ids: Vec<StripeId> = (0..group.rows_per_segment()).map(|row| StripeId { segment, row }).collect();
        for (generation, id) in (100..).zip(&ids) {
            assert_eq!(write(&group, *id, generation).await.unwrap().absent, 0);
        }
        group.flush().await.unwrap();
        assert_eq!(group.register_cas("root", 0, b"first").await, Ok(1));
        ids
    });
    drop(group);
    let group = rig.open().unwrap();
    rig.bench.run(async {
        for (generation, id) in (100..).zip(&ids) {
            check_stripe(&group, *id, generation).await.unwrap();
            check_range(&group, *id, generation, 3, 1000..9192).await.unwrap();
            assert!(group.scrub_stripe(*id, generation).await.is_clean());
        }
        let root = group.register_read("root").await;
        assert_eq!((root.version, &root.bytes[..]), (1, &b"first"[..]));
    });
    assert_eq!(group.status().state, GroupState::Online);
    assert_eq!(group.status().failures_tolerated, 2);
}
