//! Time, tasks and chance of the real world.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::cell::Cell;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use world_real::real_world;

fn on_shard<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, body)
}

#[test]
fn time_passes_tasks_run_and_bytes_are_random() {
    on_shard(async {
        let world = real_world();
        let start = world.clock.now();
        world.clock.sleep_until(start + Duration::from_millis(5)).await;
        assert!(world.clock.now().since(start) >= Duration::from_millis(5));
        assert!(world.clock.wall().0 > 1_700_000_000_000_000_000);
        let ran = Rc::new(Cell::new(false));
        let ran_too = ran.clone();
        world.spawn.spawn("test", Box::pin(async move { ran_too.set(true) }));
        world.yield_now().await;
        world.yield_now().await;
        assert!(ran.get());
        let (mut one, mut other) = ([0; 16], [0; 16]);
        world.chance.fill(&mut one);
        world.chance.fill(&mut other);
        assert_ne!(one, other);
        assert!(!world.chance.maybe("anything"));
    });
}

/// Runs itself again as a child whose task panics.
#[test]
fn a_panicking_task_stops_the_process() {
    const ASK: &str = "WORLD_REAL_PANIC";
    if std::env::var_os(ASK).is_some() {
        on_shard(async {
            let world = real_world();
            world.spawn.spawn("doomed", Box::pin(async { panic!("on purpose") }));
            world.clock.sleep_until(world.clock.now() + Duration::from_secs(20)).await;
        });
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["a_panicking_task_stops_the_process", "--exact", "--nocapture"])
        .env(ASK, "1")
        .output()
        .unwrap();
    assert_eq!(child.status.signal(), Some(6), "{:?}", child.status);
    let said = String::from_utf8_lossy(&child.stderr).into_owned();
    assert!(said.contains("the task 'doomed' panicked"), "{said}");
}
