//! Reading whole tables, a bounded piece at a time.

use engine::store::{Row, Store, StoreRefusal, Table};

/// Rows per piece.
const PIECE_ROWS: usize = 512;

/// The least key greater than `key`.
pub(crate) fn key_after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// Goes through a table from its start, piece by piece.
pub(crate) struct Scan {
    table: Table,
    from: Option<Vec<u8>>,
}

impl Scan {
    pub fn of(table: Table) -> Scan {
        Scan { table, from: Some(Vec::new()) }
    }

    /// The next rows in order; empty at the end.
    pub async fn next<S: Store>(&mut self, store: &S) -> Result<Vec<Row>, StoreRefusal> {
        let Some(from) = self.from.take() else { return Ok(Vec::new()) };
        let rows = store.scan(self.table, &from, PIECE_ROWS).await?;
        self.from = rows.last().filter(|_| rows.len() == PIECE_ROWS).map(|(key, _)| key_after(key));
        Ok(rows)
    }
}

/// All rows of a table that is known to be small.
pub(crate) async fn all_rows<S: Store>(store: &S, table: Table) -> Result<Vec<Row>, StoreRefusal> {
    let (mut scan, mut all) = (Scan::of(table), Vec::new());
    loop {
        let rows = scan.next(store).await?;
        if rows.is_empty() {
            return Ok(all);
        }
        all.extend(rows);
    }
}
