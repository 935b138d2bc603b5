//! Known answers, worked out from the definition of the field and nothing of the crate.

use parity::Row;

/// P and Q of one-byte units.
fn parity_of(row: Row, bytes: &[u8]) -> (u8, u8) {
    let units: Vec<&[u8]> = bytes.iter().map(std::slice::from_ref).collect();
    let (mut p, mut q) = ([0x55], [0x55]);
    row.encode(&units, &mut p, &mut q);
    (p[0], q[0])
}

/// Polynomials over GF(2) multiplied, then divided by x^8 + x^4 + x^3 + x^2 + 1.
fn product(a: u8, b: u8) -> u8 {
    let mut long: u32 = (0..8).filter(|bit| b >> bit & 1 == 1).map(|bit| u32::from(a) << bit).fold(0, |x, y| x ^ y);
    while long > 0xFF {
        long ^= 0x11D << (23 - long.leading_zeros());
    }
    u8::try_from(long).unwrap()
}

/// Each line can be checked by hand: g^7 = 0x80, g^8 = 0x1D, g^9 = 0x3A.
#[test]
fn answers_by_hand() {
    for &row in Row::all() {
        assert_eq!(parity_of(row, &[0xA7]), (0xA7, 0xA7), "one data unit: both parity units are copies");
        assert_eq!(parity_of(row, &[1, 1]), (0, 0b11));
        assert_eq!(parity_of(row, &[1, 1, 1]), (1, 0b111));
        assert_eq!(parity_of(row, &[0, 0x80]), (0x80, 0x1D));
        assert_eq!(parity_of(row, &[0, 0, 0x80]), (0x80, 0x3A));
        assert_eq!(parity_of(row, &[0, 0xFF]), (0xFF, 0xFE ^ 0x1D));
        assert_eq!(parity_of(row, &[1; 8]), (0, 0xFF));
        assert_eq!(parity_of(row, &[1; 9]), (1, 0xFF ^ 0x1D));
        assert_eq!(parity_of(row, &[1; 10]), (0, 0xFF ^ 0x1D ^ 0x3A));
        assert_eq!(parity_of(row, &[0; 22]), (0, 0));
    }
}

#[test]
fn every_byte_in_every_data_unit_by_the_definition() {
    for &row in Row::all() {
        let every_byte: Vec<u8> = (0..=255).collect();
        let zeros = vec![0; 256];
        let mut power = 1;
        for index in 0..parity::MAX_DATA {
            let mut data: Vec<&[u8]> = vec![&zeros; parity::MAX_DATA];
            data[index] = &every_byte;
            let (mut p, mut q) = (vec![0; 256], vec![0; 256]);
            row.encode(&data, &mut p, &mut q);
            let expected: Vec<u8> = every_byte.iter().map(|&byte| product(power, byte)).collect();
            assert!(p == every_byte && q == expected, "{} unit {index}", row.name());
            power = product(power, 2);
        }
    }
}

/// The recovery of two data units, for one column worked out on paper: D = (5, 9),
/// P = 5 + 9 = 12, Q = 5 + 2 * 9 = 23.
#[test]
fn a_recovery_by_hand() {
    for &row in Row::all() {
        assert_eq!(parity_of(row, &[5, 9]), (12, 23));
        let (mut x, mut y) = ([0], [0]);
        row.reconstruct(2, &[None, None, Some(&[12]), Some(&[23])], &mut [(0, &mut x), (1, &mut y)]).unwrap();
        assert_eq!((x, y), ([5], [9]), "{}", row.name());
    }
}
