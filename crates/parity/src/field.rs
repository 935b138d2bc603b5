//! The field GF(2^8).
//!
//! A byte is a polynomial over GF(2): bit `k` is the coefficient of `x^k`. Sum is
//! exclusive or, so every element is its own negative. Product is the product of
//! polynomials modulo `x^8 + x^4 + x^3 + x^2 + 1` (0x11D), the polynomial of Linux
//! `md` and of ISA-L. The element `x` (2) generates all 255 non-zero elements, so
//! `g^0 .. g^254` differ pairwise: that is what makes two equations in two lost
//! units solvable for every pair.
//!
//! The tables are computed by the compiler from [`double`], the only place that
//! knows the polynomial besides the word-wide doublings of the rows.

/// The polynomial without its `x^8` term: what to add when a doubling overflows.
pub(crate) const REDUCTION: u8 = 0x1D;

/// `2 * value`.
pub(crate) const fn double(value: u8) -> u8 {
    let overflow = value & 0x80 != 0;
    (value << 1) ^ if overflow { REDUCTION } else { 0 }
}

/// `EXP[n] = g^n`, written out twice so that a sum of two logarithms needs no reduction.
const EXP: [u8; 510] = {
    let mut table = [0; 510];
    let mut power = 1;
    let mut n = 0;
    while n < 510 {
        table[n] = power;
        power = double(power);
        n += 1;
    }
    table
};

/// `LOG[g^n] = n` for `n` in `0..255`; `LOG[0]` means nothing.
const LOG: [u8; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 255 {
        table[EXP[n] as usize] = n as u8;
        n += 1;
    }
    table
};

/// `g^n`, for `n` in `0..255`.
pub(crate) const fn power(n: usize) -> u8 {
    assert!(n < 255, "exponents stop before they repeat");
    EXP[n]
}

/// `a * b`.
pub(crate) const fn multiply(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 {
        return 0;
    }
    EXP[LOG[a as usize] as usize + LOG[b as usize] as usize]
}

/// `1 / a`; `a` is not zero.
pub(crate) const fn invert(a: u8) -> u8 {
    assert!(a != 0, "zero has no inverse");
    EXP[255 - LOG[a as usize] as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Product straight from the definition: shift and add, then divide by the polynomial.
    fn multiply_by_definition(a: u8, b: u8) -> u8 {
        let mut product = 0u16;
        for bit in 0..8 {
            if b >> bit & 1 == 1 {
                product ^= u16::from(a) << bit;
            }
        }
        for bit in (8..16).rev() {
            if product >> bit & 1 == 1 {
                product ^= 0x11D << (bit - 8);
            }
        }
        u8::try_from(product).unwrap()
    }

    #[test]
    fn the_tables_follow_the_definition() {
        for a in 0..=255u8 {
            assert_eq!(double(a), multiply_by_definition(2, a));
            for b in 0..=255u8 {
                assert_eq!(multiply(a, b), multiply_by_definition(a, b), "{a} * {b}");
            }
        }
    }

    #[test]
    fn every_element_but_zero_has_its_inverse() {
        for a in 1..=255u8 {
            assert_eq!(multiply_by_definition(a, invert(a)), 1, "1 / {a}");
        }
    }

    #[test]
    fn two_generates_every_element_but_zero() {
        let mut seen = [false; 256];
        for n in 0..255 {
            assert!(!std::mem::replace(&mut seen[usize::from(power(n))], true), "g^{n} came before");
        }
        assert!(!seen[0]);
    }
}
