//! Inbox (placeholder until the real one is there).
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use super::{Importer, deliveries::Deliveries};
use crate::membership::Membership;
pub struct Inbox { pub dir: PathBuf, pub importer: Arc<Importer>, pub deliveries: Arc<Deliveries>, pub membership: Arc<Membership>, pub stable: Duration }
pub async fn watch(inbox: Inbox, stop: CancellationToken) { let _ = (&inbox.dir, &inbox.importer, &inbox.deliveries, &inbox.membership, inbox.stable); stop.cancelled().await }
