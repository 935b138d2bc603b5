//! A receipt looked at without any store: are its words those that both sites signed?

use control::integrity::{Receipt, ReceiptSeal, ReceiptSigner, ReceiptVerified};
use control::{Problem, codes, signature};
use replica::Statement;

/// Looks at a receipt's file.
///
/// # Errors
/// `RECEIPT_NOT_GOOD`, with what is wrong with it.
pub fn verify_receipt(file: &str) -> Result<ReceiptVerified, Problem> {
    let not_good = |why: String| Problem::new(&codes::RECEIPT_NOT_GOOD, "this is no good receipt").why(why);
    let receipt: Receipt = serde_json::from_str(file).map_err(|why| not_good(why.to_string()))?;
    let statement = Statement::read(&receipt.statement).map_err(|fault| not_good(fault.to_string()))?;
    let mut signed_by = Vec::new();
    for site in [statement.sides.primary, statement.sides.secondary] {
        let site = site.to_string();
        let seal = receipt.seals.iter().find(|seal| seal.site == site);
        let seal = seal.ok_or_else(|| not_good(format!("site {site} has not signed it")))?;
        signed_by.push(signer(seal, &receipt.statement)?);
    }
    let [one, other] = &signed_by[..] else { return Err(not_good("two sites sign a receipt".to_owned())) };
    if one.fingerprint == other.fingerprint || receipt.seals.len() != signed_by.len() {
        return Err(not_good("two sites sign a receipt, each with a certificate of its own".to_owned()));
    }
    Ok(ReceiptVerified { statement: receipt.statement, signed_by })
}

fn signer(seal: &ReceiptSeal, words: &str) -> Result<ReceiptSigner, Problem> {
    let bytes = |text: &str| {
        unhex(text).ok_or_else(|| {
            Problem::new(&codes::RECEIPT_NOT_GOOD, "this is no good receipt").why("it holds what is no hex digits")
        })
    };
    let (certificate, signature) = (bytes(&seal.certificate)?, bytes(&seal.signature)?);
    let fingerprint = signature::verify(&certificate, words.as_bytes(), &signature)?;
    Ok(ReceiptSigner { site: seal.site.clone(), fingerprint: fingerprint.to_string() })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let is_hex = text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).ok();
    if is_hex { (0..text.len()).step_by(2).map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use base::{Epoch, Osn, PairId, SiteId, WallNanos};
    use replica::Sides;

    use super::*;

    fn receipt() -> Receipt {
        let sides = Sides { primary: SiteId([1; 16]), secondary: SiteId([2; 16]) };
        let statement = Statement {
            pair: PairId([7; 16]),
            about: "flash0: vms".to_owned(),
            osn: Osn::of(Epoch(3), 99),
            sides,
            reads_data: true,
            files: 2,
            bytes: 3,
            rows: 4,
            digest: [9; 16],
            at: WallNanos(5),
        };
        let words = statement.words();
        let seal = |site: SiteId| {
            let pem = control::tls::make("site", [127, 0, 0, site.0[0]].into()).unwrap();
            let (certificate, signature) = signature::sign(&pem, words.as_bytes()).unwrap();
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            ReceiptSeal { site: site.to_string(), certificate: hex(&certificate), signature: hex(&signature) }
        };
        let seals = vec![seal(sides.secondary), seal(sides.primary)];
        Receipt { statement: words, seals }
    }

    fn looked_at(receipt: &Receipt) -> Result<ReceiptVerified, Problem> {
        verify_receipt(&serde_json::to_string(receipt).unwrap())
    }

    #[test]
    fn a_receipt_is_good_only_as_both_sites_signed_it() {
        let good = receipt();
        let verified = looked_at(&good).unwrap();
        assert_eq!(verified.signed_by.len(), 2);
        assert!(verified.human().contains("files 2"));
        let changed = Receipt { statement: good.statement.replace("files 2", "files 9"), ..good.clone() };
        let alone = Receipt { seals: vec![good.seals[0].clone()], ..good.clone() };
        let mut twice = good.clone();
        twice.seals[0] = ReceiptSeal { site: twice.seals[0].site.clone(), ..twice.seals[1].clone() };
        let mut more = good.clone();
        more.seals.push(good.seals[0].clone());
        for bad in [changed, alone, twice, more] {
            assert_eq!(looked_at(&bad).unwrap_err().code(), &codes::RECEIPT_NOT_GOOD);
        }
        assert!(verify_receipt("{}").is_err());
    }
}
