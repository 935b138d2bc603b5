//! How fast simulated time runs: steps and I/Os per wall second on one core.
//!
//! `cargo run --release -p world-sim --example speed`
#![allow(clippy::unwrap_used, reason = "a measuring program")]

use base::BufMut;
use world_sim::SimWorld;

fn main() {
    let started = std::time::Instant::now();
    let (mut ios, mut steps, mut simulated_ns) = (0u64, 0, 0);
    for seed in 0..20 {
        let sim = SimWorld::new(seed);
        let node = sim.node();
        let drives: Vec<_> = (0..6).map(|index| node.drive(&sim.drive_media(&format!("d{index}"), 64 << 20))).collect();
        sim.run_until(async {
            for round in 0..500u64 {
                let at = round * 135_168 % (60 << 20) / 4096 * 4096;
                let unit = BufMut::zeroed(132 << 10).freeze();
                let writes: Vec<_> = drives.iter().map(|drive| drive.write(at, vec![unit.clone()])).collect();
                for write in writes {
                    write.await.unwrap();
                }
                drives[0].read(at, BufMut::zeroed(8192)).await.0.unwrap();
                if round % 50 == 0 {
                    drives[1].flush().await.unwrap();
                }
                ios += 7;
            }
        })
        .done();
        steps += sim.steps();
        simulated_ns += sim.elapsed_ns();
    }
    let wall = started.elapsed().as_secs_f64();
    println!("{:.0} I/Os of 132 KiB per second", ios as f64 / wall);
    println!(
        "{:.0} steps per second, {:.3} simulated seconds per second",
        steps as f64 / wall,
        simulated_ns as f64 / 1e9 / wall
    );
}
