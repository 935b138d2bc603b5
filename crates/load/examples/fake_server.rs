//! The tests' server as a process, storing no data: to measure what the client costs.
//! `cargo run --release -p load --example fake_server -- 127.0.0.1:20049`

#![allow(clippy::unwrap_used, missing_docs, reason = "a measuring aid")]

#[path = "../tests/fake/mod.rs"]
mod fake;

fn main() {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:20049".into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let manners = fake::Manners { sink: true, ..fake::Manners::default() };
        let fake = fake::Fake::start_at(&address, manners).await;
        println!("serving {}", fake.url("/export"));
        std::future::pending::<()>().await;
    });
}
