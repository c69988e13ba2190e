//! The share group of a sequence: each message goes to one member, and which one the broker says.
//!
//! A step is left out where nobody could see which member that is: where several are away.

use std::time::Instant;

use crate::{
    common::packets::{subscribe, unsubscribe},
    driver::{CLIENTS, Play, SHARED, packet_limit, read},
    reference::{Delivery, Sent},
};

/// Its topic, beside those of the place.
pub(crate) fn topic(place: &str) -> String {
    format!("{place}-s/a")
}

fn filter(place: &str) -> String {
    format!("$share/group/{}", topic(place))
}

/// A message on its way to some member: payload and QoS.
pub(crate) type Handed = Vec<(String, u8)>;

impl Play<'_> {
    pub(crate) fn join(&mut self, client: usize, qos: u8) {
        let (id, filter) = (self.fresh_id(), filter(&self.place));
        let Some(peer) = &mut self.peers[client] else {
            return;
        };
        peer.wire
            .send(&subscribe(peer.version, id, &[(&filter, qos)]));
        assert_eq!(peer.answer().last(), Some(&qos), "granted");
        let session = self.reference.sessions[client].as_mut().expect("connected");
        session.share = Some(qos);
    }

    pub(crate) fn leave(&mut self, client: usize) {
        let (id, filter) = (self.fresh_id(), filter(&self.place));
        let Some(peer) = &mut self.peers[client] else {
            return;
        };
        peer.wire.send(&unsubscribe(peer.version, id, &[&filter]));
        assert_eq!(peer.answer()[0], 0xb0);
        let session = self.reference.sessions[client].as_mut().expect("connected");
        session.share = None;
    }

    pub(crate) fn share(&mut self, client: usize, qos: u8) {
        let (connected, stored) = self.members(None);
        if connected.is_empty() && stored.len() > 1 {
            return;
        }
        let (payload, name) = (self.fresh_payload(), topic(&self.place));
        let Some(code) = self.send(client, &name, qos << 1, &payload) else {
            return;
        };
        assert_eq!(code, 0, "everybody may publish to the share group");
        if !connected.is_empty() {
            return self.find_takers(vec![(payload, qos)]);
        }
        for member in stored {
            let session = self.reference.sessions[member].as_mut().expect("a member");
            let delivery = delivery(payload.clone(), qos, session.share.expect("a member"));
            if delivery.qos > 0 {
                session.waiting.push_back(delivery);
            } else {
                session.missed.push(delivery.payload);
            }
        }
    }

    /// The members: those that are connected, and those that are not.
    fn members(&self, except: Option<usize>) -> (Vec<usize>, Vec<usize>) {
        let is_member = |client: &usize| {
            let session = self.reference.sessions[*client].as_ref();
            Some(*client) != except && session.is_some_and(|session| session.share.is_some())
        };
        let all = (0..CLIENTS).filter(is_member);
        all.partition(|client| self.reference.connected[*client])
    }

    /// What other members get when this client loses its connection, and its session with `ends`;
    /// `None` if nobody could see who does.
    pub(crate) fn handed(&self, client: usize, ends: bool) -> Option<Handed> {
        let Some(session) = &self.reference.sessions[client] else {
            return Some(Handed::new());
        };
        let is_connected = self.reference.connected[client];
        let ends = ends || (is_connected && !session.is_kept);
        if !is_connected && !ends {
            return Some(Handed::new());
        }
        // What was sent at QoS 2 stays with its session.
        let sent = session.sent.iter().map(|sent| &sent.delivery);
        let free = sent.filter(|sent| sent.qos == 1).chain(&session.waiting);
        let handed: Handed = free
            .filter_map(|free| Some((free.payload.clone(), free.share?)))
            .collect();
        let (connected, stored) = self.members(Some(client));
        match (connected.is_empty(), ends && !stored.is_empty()) {
            _ if handed.is_empty() => Some(handed),
            (false, _) => Some(handed),
            (true, false) => Some(Handed::new()),
            (true, true) => None,
        }
    }

    /// It is the client's no longer.
    pub(crate) fn forget_handed(&mut self, client: usize, handed: &Handed) {
        let Some(session) = &mut self.reference.sessions[client] else {
            return;
        };
        let is_handed =
            |held: &Delivery| handed.iter().any(|(payload, _)| *payload == held.payload);
        session.waiting.retain(|waits| !is_handed(waits));
        let ids = std::mem::take(&mut self.ids[client]).into_iter();
        let open = std::mem::take(&mut session.sent).into_iter().zip(ids);
        let stays = open.filter(|(sent, _)| !is_handed(&sent.delivery));
        (session.sent, self.ids[client]) = stays.unzip();
    }

    /// Waits until each of these has come to a connected member.
    pub(crate) fn find_takers(&mut self, mut handed: Handed) {
        let deadline = Instant::now() + packet_limit();
        let (connected, _) = self.members(None);
        while !handed.is_empty() {
            assert!(Instant::now() < deadline, "no member got {handed:?}");
            for client in &connected {
                self.take_shared(*client, &mut handed);
            }
        }
    }

    fn take_shared(&mut self, client: usize, handed: &mut Handed) {
        let peer = self.peers[client].as_mut().expect("it is connected");
        let Some(message) = peer.message_soon() else {
            return;
        };
        let (id, is_again) = (message.id, message.dup);
        let seen = read(&self.place, message);
        let place = handed
            .iter()
            .position(|(payload, _)| *payload == seen.payload);
        let place = place.unwrap_or_else(|| panic!("client {client} got {seen:?}: {handed:?}"));
        let (payload, qos) = handed.remove(place);
        let session = self.reference.sessions[client].as_mut().expect("a member");
        let delivery = delivery(payload, qos, session.share.expect("a member"));
        assert!(!is_again, "sent first with DUP: {seen:?}");
        assert_eq!(
            seen,
            Delivery {
                share: None,
                ..delivery.clone()
            }
        );
        if delivery.qos > 0 {
            assert!(id != 0 && !self.ids[client].contains(&id));
            self.ids[client].push(id);
            session.sent.push(Sent {
                delivery,
                is_received: false,
            });
        }
    }
}

fn delivery(payload: String, qos: u8, granted: u8) -> Delivery {
    Delivery {
        topic: SHARED,
        qos: qos.min(granted),
        retain: false,
        payload,
        ids: Vec::new(),
        share: Some(qos),
    }
}
