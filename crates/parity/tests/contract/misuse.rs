//! What the caller must not do ends in a panic before anything is written.

use std::panic::{AssertUnwindSafe, catch_unwind};

use parity::Row;

const A: &[u8] = &[1; 100];
const SHORT: &[u8] = &[1; 99];
const UNTOUCHED: u8 = 0x55;

/// Panics unless `work` panics on every row and leaves both buffers as they were.
fn assert_refused(what: &str, work: impl Fn(Row, &mut [u8], &mut [u8])) {
    for &row in Row::all() {
        let (mut first, mut second) = ([UNTOUCHED; 100], [UNTOUCHED; 100]);
        let outcome = catch_unwind(AssertUnwindSafe(|| work(row, &mut first, &mut second)));
        assert!(outcome.is_err(), "{}: {what} was let through", row.name());
        assert!(first.iter().chain(&second).all(|&byte| byte == UNTOUCHED), "{}: {what} wrote", row.name());
    }
}

#[test]
fn lengths_that_differ() {
    assert_refused("short data", |row, p, q| row.encode(&[A, SHORT], p, q));
    assert_refused("short first data", |row, p, q| row.encode(&[SHORT, A], p, q));
    assert_refused("short P", |row, p, q| row.encode(&[A], &mut p[..99], q));
    assert_refused("short Q", |row, p, q| row.encode(&[A], p, &mut q[..99]));
    assert_refused("short data for P", |row, p, _| row.encode_p(&[A, SHORT], p));
    assert_refused("short data to check", |row, _, _| {
        let _ = row.check(&[SHORT], A, A);
    });
    assert_refused("short P to check", |row, _, _| {
        let _ = row.check(&[A], SHORT, A);
    });
    assert_refused("short Q to check", |row, _, _| {
        let _ = row.check(&[A], A, SHORT);
    });
    assert_refused("short only P to check", |row, _, _| {
        let _ = row.check_p(&[A], SHORT);
    });
    assert_refused("short unit present", |row, x, _| {
        let _ = row.reconstruct(2, &[None, Some(SHORT), Some(A)], &mut [(0, x)]);
    });
    assert_refused("short unit present and not needed", |row, x, _| {
        let _ = row.reconstruct(2, &[None, Some(A), Some(A), Some(SHORT)], &mut [(0, x)]);
    });
    assert_refused("short target", |row, x, y| {
        let _ = row.reconstruct(2, &[None, None, Some(A), Some(A)], &mut [(0, x), (1, &mut y[..99])]);
    });
}

#[test]
fn stripes_of_no_shape() {
    assert_refused("no data", |row, p, q| row.encode(&[], p, q));
    assert_refused("no data for P", |row, p, _| row.encode_p(&[], p));
    assert_refused("too much data", |row, p, q| row.encode(&[A; 254], p, q));
    assert_refused("no data to rebuild from", |row, x, _| {
        let _ = row.reconstruct(0, &[None], &mut [(0, x)]);
    });
    assert_refused("too much data to rebuild from", |row, x, _| {
        let _ = row.reconstruct(254, &[Some(A); 254], &mut [(254, x)]);
    });
    assert_refused("three parity units", |row, x, _| {
        let _ = row.reconstruct(1, &[None, Some(A), Some(A), Some(A)], &mut [(0, x)]);
    });
    assert_refused("fewer units than data", |row, x, _| {
        let _ = row.reconstruct(3, &[None, Some(A)], &mut [(0, x)]);
    });
}

#[test]
fn targets_that_make_no_sense() {
    assert_refused("a unit present and wanted", |row, x, _| {
        let _ = row.reconstruct(2, &[Some(A), Some(A), None], &mut [(0, x)]);
    });
    assert_refused("a unit wanted twice", |row, x, y| {
        let _ = row.reconstruct(2, &[None, Some(A), Some(A)], &mut [(0, x), (0, y)]);
    });
    assert_refused("a unit outside the stripe", |row, x, _| {
        let _ = row.reconstruct(2, &[Some(A), Some(A), None], &mut [(3, x)]);
    });
}
