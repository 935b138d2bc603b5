//! One file of a VM by itself: for hypervisors that keep their own books of a VM's disks and ask disk by
//! disk. Documents and calls.

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::Role;
use crate::codes;
use crate::envelope::Document;
use crate::extract::{Asked, Named, Parts2, Sent};
use crate::guard::DryRun;
use crate::plan::Plan;
use crate::problem::Problem;
use crate::route::Route;
use crate::server::{Reply, Shared, envelope};

/// Longest path of a file in a datastore.
const PATH_BYTES_MAX: usize = 1000;

/// What a snapshot holds of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileSnapshot {
    /// Name of the snapshot, which is of all files of the VM.
    pub snapshot: String,
    /// When it was taken.
    pub created_at: Timestamp,
    /// Size the file had.
    pub size_bytes: u64,
}

/// Snapshots of a VM that hold one file, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct FileSnapshotList(pub Vec<FileSnapshot>);

impl Document for FileSnapshotList {
    const SCHEMA: &'static str = "vmhold.file.snapshots/v1";
}

/// A snapshot and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotOfVm {
    /// VM.
    pub vm: String,
    /// Name of its snapshot.
    pub name: String,
}

/// A new file that begins with the content of another and shares its blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileClone {
    /// Path of the other in the datastore.
    pub path: String,
    /// The content is what this snapshot holds of it; as it is now, if there is none.
    pub snapshot: Option<SnapshotOfVm>,
    /// Path of the new file; folders on the way are made.
    pub to: String,
}

impl Document for FileClone {
    const SCHEMA: &'static str = "vmhold.file.clone/v1";
}

impl FileClone {
    /// Checks that both paths could be some.
    ///
    /// # Errors
    /// `BAD_INPUT` that names the field.
    pub fn check(&self) -> Result<(), Problem> {
        let is_name = |name: &str| !name.is_empty() && name != "." && name != ".." && !name.contains('\0');
        for (field, path) in [("path", &self.path), ("to", &self.to)] {
            if path.len() > PATH_BYTES_MAX || !path.split('/').all(is_name) {
                return Err(Problem::new(&codes::BAD_INPUT, format!("the path {path:?} cannot be used"))
                    .field(field, format!("names from the top of the datastore, at most {PATH_BYTES_MAX} bytes")));
            }
        }
        Ok(())
    }
}

/// Rows of the table.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get("/v1/vms/{datastore}/{vm}/snapshot-files", "Snapshots that hold one file of a VM.", held)
            .answers::<FileSnapshotList>()
            .parameter("file", "string", "Path of the file in the datastore."),
        Route::post("/v1/file-clones/{datastore}", "Makes a file that begins as another and shares its blocks.", clone)
            .role(Role::Operator)
            .takes::<FileClone>()
            .answers::<FileClone>()
            .creates()
            .plans(),
    ]
}

/// Which file.
#[derive(Deserialize)]
struct One {
    file: String,
}

async fn held(State(api): Shared, Parts2(datastore, vm): Parts2, Asked(One { file }): Asked<One>) -> Reply {
    Ok(envelope(None, FileSnapshotList(api.backend().file_snapshots(datastore, vm, file).await?)))
}

async fn clone(
    State(api): Shared,
    Named(datastore): Named,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    Sent(wish): Sent<FileClone>,
) -> Reply {
    wish.check()?;
    if dry_run {
        let of = wish.snapshot.map_or("it is".to_owned(), |of| format!("snapshot {} of VM {} has it", of.name, of.vm));
        let plan = Plan::would(format!("make {} out of {} as {of}", wish.to, wish.path));
        return Ok(envelope(None, plan.and("share their blocks until one of the two writes them over")));
    }
    let made = api.backend().clone_file(datastore, wish).await?;
    Ok((StatusCode::CREATED, envelope(None, made)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_out_or_nowhere_are_refused() {
        let wish = |path: &str, to: &str| FileClone { path: path.into(), snapshot: None, to: to.into() };
        assert!(wish("images/100/vm-100-disk-0.raw", "template/x/a b.raw").check().is_ok());
        for bad in ["", "/a", "a/", "a//b", "../a", "a/./b", "a\0", &"x".repeat(1001)] {
            for one in [wish(bad, "a"), wish("a", bad)] {
                assert_eq!(one.check().unwrap_err().code().number, 7400, "{bad:?}");
            }
        }
    }
}
