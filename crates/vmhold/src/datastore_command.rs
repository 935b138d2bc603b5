//! `datastore`.

use control::client::{Call, segment};
use control::datastore::{Datastore, DatastoreCreate, DatastoreDeleted, DatastoreList, MountInfo, Platform};
use control::{Envelope, Exit, Problem};

use crate::appliance::{self, change};
use crate::cli::{DatastoreAction, DatastoreCommand, Global};
use crate::consent;
use crate::say::{Say, width};

/// Runs a verb.
pub fn run(command: &DatastoreCommand, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let client = || appliance::client(global);
    match &command.action {
        DatastoreAction::List => {
            let list: Envelope<DatastoreList> = client()?.get("/v1/datastores")?;
            say.envelope(&list, |list, _| list.human(width()));
        }
        DatastoreAction::Show { name } => {
            let one: Envelope<Datastore> = client()?.get(&format!("/v1/datastores/{}", segment(name)))?;
            say.envelope(&one, |one, _| DatastoreList(vec![one.clone()]).human(width()));
        }
        DatastoreAction::Create { name, root_squash, allow } => {
            let request = DatastoreCreate { name: name.clone(), root_squash: *root_squash, allow: allow.clone() };
            request.check()?;
            let body = serde_json::to_string(&request).expect("a request holds only strings and flags");
            let call = Call { method: "POST", path: "/v1/datastores", body: Some(&body), ..change(global) };
            let created = client()?.change::<Datastore>(&call)?;
            return Ok(say.changed(&created, |created, _| {
                format!(
                    "datastore {name} can be mounted as {}; how: vmhold datastore mount-info {name}\n",
                    created.export
                )
            }));
        }
        DatastoreAction::Delete { name } => return delete(name, global, say),
        DatastoreAction::MountInfo { name, platform } => {
            platform.parse::<Platform>()?;
            let path = format!("/v1/datastores/{}/mount-info?for={}", segment(name), segment(platform));
            let info: Envelope<MountInfo> = client()?.get(&path)?;
            say.envelope(&info, |info, _| info.human());
        }
    }
    Ok(Exit::Success)
}

fn delete(name: &str, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let client = appliance::client(global)?;
    let path = format!("/v1/datastores/{}", segment(name));
    let there: Envelope<Datastore> = client.get(&path)?;
    let there = there.into_result()?;
    if !global.dry_run {
        let effects = there.deletion().would.join("; ");
        consent::confirmed(global, name, &effects)?;
    }
    let confirm = (!global.dry_run).then_some(name);
    let deleted =
        client.change::<DatastoreDeleted>(&Call { method: "DELETE", path: &path, confirm, ..change(global) })?;
    Ok(say.changed(&deleted, |deleted, _| format!("datastore {} is gone\n", deleted.name)))
}
