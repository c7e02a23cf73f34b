//! Keeps a replica's part in the election: reads the Lease, writes what [`Election`] says, and tells the rest where it stands.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use mesh_api::client::causes::Causes;
use mesh_runtime::clock;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::lead::{EVERY, Election, Standing};
use crate::observe::Client;
use crate::{apply, observe};

/// What the rest of the process asks: may it write, is it done. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lead {
    election: Arc<Mutex<Election>>,
    told: watch::Receiver<Standing>,
}

impl Lead {
    /// Where this replica stands now, a lapse that nobody has noticed yet included.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.election.lock().standing(clock::now())
    }

    /// Waits until the API has said for the first time where this replica stands.
    pub async fn known(&mut self) {
        if self.told.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until it stands so.
    pub async fn stands(&mut self, wanted: Standing) {
        if self.told.wait_for(|standing| *standing == wanted).await.is_err() {
            // The election has ended, and so does the process.
            std::future::pending::<()>().await;
        }
    }
}

/// The task that keeps the election.
pub struct Elector {
    client: Client,
    own: String,
    election: Arc<Mutex<Election>>,
    told: watch::Sender<Standing>,
}

impl Elector {
    /// Of the replica that is called `own`.
    #[must_use]
    pub fn new(client: Client, own: String) -> (Self, Lead) {
        let election = Arc::new(Mutex::new(Election::new(own.clone())));
        let (told, listener) = watch::channel(Standing::Waits);
        let lead = Lead { election: Arc::clone(&election), told: listener };
        (Self { client, own, election, told }, lead)
    }

    /// Runs until `ended` is dropped or the Lease is lost; a Lease that is held then is given back. So `ended` is dropped when nothing more
    /// is written.
    pub async fn run(self, mut ended: oneshot::Receiver<()>) {
        loop {
            let asked = clock::now();
            let turned = match tokio::time::timeout(EVERY, self.turn(asked)).await {
                Ok(turned) => turned.inspect_err(|error| tracing::warn!(error = %Causes(error), "lease not kept")).is_ok(),
                Err(_) => {
                    tracing::warn!(after = ?EVERY, "lease not kept: the API does not answer");
                    false
                }
            };
            let standing = self.election.lock().standing(clock::now());
            if (turned || standing != Standing::Waits) && self.told.send_replace(standing) != standing {
                tracing::info!(?standing, own = self.own, "leadership");
            }
            if standing == Standing::Lost {
                return;
            }
            tokio::select! {
                _ = &mut ended => break,
                () = tokio::time::sleep_until((asked + EVERY).into()) => {}
            }
        }
        if self.election.lock().standing(clock::now()) == Standing::Leads
            && let Ok(Err(error)) = tokio::time::timeout(EVERY, apply::lease::give_back(&self.client, &self.own)).await
        {
            tracing::info!(error = %Causes(&error), "lease not given back: the next replica waits for its end");
        }
    }

    async fn turn(&self, asked: Instant) -> Result<(), apply::NotApplied> {
        let record = observe::lease::read(&self.client).await.map_err(apply::NotApplied::lease)?;
        let claim = self.election.lock().on_read(record.as_ref(), clock::now());
        if let Some(claim) = claim
            && apply::lease::claim(&self.client, &self.own, claim, clock::wall()).await?
        {
            self.election.lock().on_claimed(asked);
        }
        Ok(())
    }
}

/// What this replica is called: its host's name, which is its pod's, and a number that is drawn once and kept in `state`. A process that
/// restarts there is the same replica and need not wait for its own Lease to end; two on one host are two.
///
/// # Errors
/// When the folder can't be used.
pub fn name(state: &Path) -> anyhow::Result<String> {
    let path = state.join("replica");
    let unusable = || format!("the replica's name can't be kept in {}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(kept) if !kept.is_empty() => return Ok(kept),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(unusable),
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = format!("{}_{:08x}", host.trim(), rand::random::<u32>());
    std::fs::create_dir_all(state).with_context(unusable)?;
    std::fs::write(&path, &name).with_context(unusable)?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_keeps_its_name_where_its_state_is() {
        let folder = tempfile::tempdir().unwrap();
        let first = name(&folder.path().join("one")).unwrap();
        assert_eq!(name(&folder.path().join("one")).unwrap(), first);
        assert_ne!(name(&folder.path().join("two")).unwrap(), first);
    }
}
