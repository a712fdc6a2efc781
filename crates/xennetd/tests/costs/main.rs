//! What leases cost on the chain: the figures of docs/money.md and of the decision on Lightning, from transactions that are built here.
//! `XENNET_WRITE_DOCS=1 cargo test -p xennetd --test costs` writes them into the documents; without that the documents must agree.
#![allow(clippy::unwrap_used)]

mod lightning;
mod ours;
mod tables;

use bitcoin::Transaction;

/// Longest signature in a witness.
const SIGNATURE_LEN: usize = 72;

/// Virtual bytes with all signatures at their full length: some come out a byte or two shorter, and no figure shall depend on that.
fn vbytes(tx: &Transaction) -> u64 {
    let elements = tx.input.iter().flat_map(|input| input.witness.iter());
    let missing: usize = elements.filter(|element| is_signature(element)).map(|element| SIGNATURE_LEN - element.len()).sum();
    (tx.weight().to_wu() + missing as u64).div_ceil(4)
}

/// DER, and the byte that says what is signed: `ALL` or `SINGLE|ANYONECANPAY`.
fn is_signature(element: &[u8]) -> bool {
    (60..=SIGNATURE_LEN).contains(&element.len()) && element[0] == 0x30 && matches!(element[element.len() - 1], 0x01 | 0x83)
}

/// Puts a table between its marks in a document, or holds the document to it.
fn agree(document: &str, mark: &str, table: &str) {
    let path = format!("{}/../../docs/{document}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {mark}: measured -->\n"), format!("<!-- {mark}: end -->"));
    let (before, rest) = text.split_once(&begin).unwrap();
    let (there, after) = rest.split_once(&end).unwrap();
    println!("{table}");
    if std::env::var_os("XENNET_WRITE_DOCS").is_some() {
        std::fs::write(&path, [before, &begin, table, &end, after].concat()).unwrap();
    } else {
        assert_eq!(there, table, "docs/{document} does not say what is measured: XENNET_WRITE_DOCS=1 writes it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_say_what_is_measured() {
    let ours = ours::measured().await;
    let theirs = lightning::measured();
    agree("money.md", "costs", &tables::costs(&ours));
    agree("money.md", "least", &tables::least(&ours));
    agree("adr/0004-no-lightning.md", "sizes", &tables::sizes(&ours, &theirs));
    agree("adr/0004-no-lightning.md", "cost", &tables::cost(&ours, &theirs));
    agree("adr/0004-no-lightning.md", "share", &tables::share(&ours, &theirs));
}
