//! Writes the objects of an installation, by server-side apply, in their order.

use anyhow::Context as _;
use kube::Client;
use kube::api::{Patch, PostParams};
use mesh_api::well_known::MANAGED_BY_ISTHMUS;
use mesh_manifests::Object;

use super::observe::{Action, Compared, action, api_of, is_written_once, params};

/// Applies every object; what fails ends it, and the same command goes on from there.
///
/// # Errors
/// When the cluster does not answer or refuses an object.
pub(super) async fn apply(client: &Client, wanted: &[Object]) -> anyhow::Result<Vec<Compared>> {
    let mut done = Vec::new();
    for object in wanted {
        let what = || format!("could not apply {} {}: run the same command again when this is mended", object.kind(), object.name());
        let one = apply_one(client, object).await.with_context(what)?;
        anstream::eprintln!("{:<10} {} {}", one.action.word(), one.kind, one.name);
        done.push(one);
    }
    Ok(done)
}

async fn apply_one(client: &Client, object: &Object) -> anyhow::Result<Compared> {
    let api = api_of(client, object);
    let held = api.get_opt(object.name()).await?.map(serde_json::to_value).transpose()?;
    let planned = action(object, held.as_ref(), None);
    match planned {
        Action::Keep => Ok(Compared::new(planned, object)),
        // Not applied but created: somebody who was faster is not written over.
        Action::Create if is_written_once(object) => {
            let manager = PostParams { field_manager: Some(MANAGED_BY_ISTHMUS.to_owned()), ..PostParams::default() };
            api.create(&manager, &serde_json::from_value(object.body().clone())?).await?;
            Ok(Compared::new(planned, object))
        }
        Action::Create | Action::Update | Action::Unchanged => {
            let made = serde_json::to_value(api.patch(object.name(), &params(), &Patch::Apply(object.body())).await?)?;
            Ok(Compared::new(action(object, held.as_ref(), Some(&made)), object))
        }
    }
}
