//! Whose credential a refused client showed, as far as the database is asked for it.

use std::collections::HashMap;

use super::notice::RefusedClientNotice;
use super::refused::Known;
use super::shared::Shared;

/// Credentials that are looked up in one round; further ones are told as unknown.
const LOOK_UPS_MAX: usize = 32;

/// What was looked up in a round: once for each credential, however often it was shown.
#[derive(Default)]
pub(super) struct LookUps(HashMap<[u8; 32], Option<Known>>);

impl LookUps {
    /// What is known of the credential that the client showed.
    pub(super) fn known(&mut self, shared: &Shared, client: &RefusedClientNotice) -> Option<Known> {
        if let Some((identity, credential)) = client.known {
            return Some(Known {
                credential,
                identity,
                name: None,
                ended_ms: None,
            });
        }
        client.digests.iter().find_map(|digest| {
            if let Some(found) = self.0.get(digest) {
                return found.clone();
            }
            if self.0.len() >= LOOK_UPS_MAX {
                return None;
            }
            let found = shared.look_up(digest);
            self.0.insert(*digest, found.clone());
            found
        })
    }
}
