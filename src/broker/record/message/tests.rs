//! Message records: what is written is what is read, and nothing else is read.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Wanted {
    session: u32,
    qos: QoS,
    retain: bool,
    ids: Vec<u32>,
    group: Option<String>,
}

impl Wanted {
    fn target(&self) -> Target<'_> {
        Target {
            session: self.session,
            qos: self.qos,
            retain: self.retain,
            ids: self.ids.as_slice().into(),
            group: self.group.as_deref(),
        }
    }
}

fn message(qos: u8, topic: &str, properties: &[u8], payload: &[u8], expires: u64) -> Message {
    let (topic, qos) = (Topic::new(topic).unwrap(), QoS::from_u8(qos).unwrap());
    let content = Content::from_parts(topic, properties, payload, qos, true);
    let publisher = Publisher {
        identity: 7,
        credential: 8,
        generation: 9,
    };
    Message::restored(content, publisher, 1_000, (expires != 0).then_some(expires))
}

fn bytes(message: &Message, flags: Flags, targets: &Targets) -> Vec<u8> {
    let whole = parts(message, flags, targets, &mut Fixed::default()).concat();
    assert_eq!(whole.len(), body_len(message, targets));
    whole
}

fn encoded(wanted: &[Wanted]) -> Targets {
    let mut targets = Targets::default();
    for wanted in wanted {
        assert!(targets.push(&wanted.target()));
    }
    assert_eq!(targets.len(), wanted.len());
    targets
}

/// Each session once.
fn all_wanted(most: usize) -> impl Strategy<Value = Vec<Wanted>> {
    let all = proptest::collection::vec(wanted(), 0..most);
    all.prop_map(|mut all| {
        all.sort_by_key(|wanted| wanted.session);
        all.dedup_by_key(|wanted| wanted.session);
        all
    })
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let group = proptest::option::of(prop_oneof![Just("$share/a/x"), Just("$share/b/#")]);
    let ids = proptest::collection::vec(1..=268_435_455_u32, 0..4);
    (any::<u32>(), 1..=2_u8, any::<bool>(), ids, group).prop_map(
        |(session, qos, retain, ids, group)| Wanted {
            session,
            qos: QoS::from_u8(qos).unwrap(),
            retain,
            ids,
            group: group.map(str::to_owned),
        },
    )
}

fn flags() -> impl Strategy<Value = Flags> {
    (any::<bool>(), any::<bool>()).prop_map(|(retain, will)| Flags { retain, will })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        wanted in all_wanted(20),
        flags in flags(),
        qos in 0..=2_u8,
        expires in any::<u64>(),
        properties in proptest::collection::vec(any::<u8>(), 0..20),
        payload in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let message = message(qos, "a/b", &properties, &payload, expires);
        let targets = encoded(&wanted);
        let body = bytes(&message, flags, &targets);
        let read = MessageRecord::decode(&body).expect("it is one");
        prop_assert_eq!(read.flags, flags);
        prop_assert_eq!(read.has_targets(), !wanted.is_empty());
        let expected: Vec<_> = wanted.iter().map(Wanted::target).collect();
        prop_assert_eq!(read.targets().collect::<Vec<_>>(), expected);
        // The Retain flag of the message is the record's.
        if flags.retain {
            let header = header(&message, 1, PacketId::new(2));
            prop_assert_eq!((header.session, header.packet_id), (1, 2));
            prop_assert_eq!(&*read.message(&header).expect("a message"), &message);
        }
    }

    #[test]
    fn every_cut_before_the_payload_is_none(
        wanted in all_wanted(4),
        properties in proptest::collection::vec(any::<u8>(), 0..9),
    ) {
        let message = message(1, "a/b", &properties, b"", 5);
        let whole = bytes(&message, Flags::default(), &encoded(&wanted));
        for cut in 0..whole.len() {
            prop_assert_eq!(MessageRecord::decode(&whole[..cut]), None, "cut at {}", cut);
        }
    }

    /// Whatever stands there, it is read without a panic, and what is taken for one can be walked.
    #[test]
    fn any_bytes_are_read_or_not(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        wanted in all_wanted(6),
        at in any::<proptest::sample::Index>(),
        with in any::<u8>(),
    ) {
        let _ = MessageRecord::decode(&bytes);
        let message = message(2, "a", b"", b"payload", 0);
        bytes = self::bytes(&message, Flags::default(), &encoded(&wanted));
        let at = at.index(bytes.len());
        bytes[at] = with;
        if let Some(read) = MessageRecord::decode(&bytes) {
            let _ = read.targets().map(|target| target.ids.iter().count()).sum::<usize>();
        }
    }
}

#[test]
fn what_a_later_version_may_mark_is_not_taken_for_something_else() {
    let message = message(1, "a", b"", b"", 0);
    let one = Wanted {
        session: 1,
        qos: QoS::AtLeastOnce,
        retain: false,
        ids: Vec::new(),
        group: None,
    };
    let whole = bytes(&message, Flags::default(), &encoded(&[one]));
    assert!(MessageRecord::decode(&whole).is_some());
    let target = whole.len() - 5;
    for (at, byte) in [
        (0, 4),           // an unknown mark of the message
        (target, 0),      // QoS 0 is never for a stored session
        (target, 3),      // no QoS
        (target, 1 | 32), // an unknown mark of the target
        (target, 1 | 16), // a group, and none was named
    ] {
        let mut changed = whole.clone();
        changed[at] = byte;
        assert_eq!(MessageRecord::decode(&changed), None, "{byte} at {at}");
    }
    let mut header = header(&message, 0, None);
    header.qos = 3;
    let read = MessageRecord::decode(&whole).unwrap();
    assert_eq!(read.message(&header), None);
}

/// A group is named once, and a full record keeps what it has.
#[test]
fn targets_stay_within_their_bound() {
    let group = "$share/g/".to_owned() + &"x".repeat(60_000);
    let mut wanted = Wanted {
        session: 0,
        qos: QoS::ExactlyOnce,
        retain: true,
        ids: Vec::new(),
        group: Some(group),
    };
    let mut targets = Targets::default();
    assert!(targets.push(&wanted.target()));
    wanted.group = None;
    while targets.push(&Target {
        session: wanted.session + 1,
        ..wanted.target()
    }) {
        wanted.session += 1;
    }
    assert!(targets.len() > 50_000, "{}", targets.len());
    assert!(targets.bytes.len() <= TARGETS_BYTES_MAX);
    // Another name does not fit, and leaves nothing behind.
    let other = Target {
        group: Some("$share/other"),
        session: u32::MAX,
        ..wanted.target()
    };
    let before = targets.bytes.clone();
    assert!(!targets.push(&other));
    assert_eq!(targets.bytes, before);
    let message = message(1, "a", b"", b"", 0);
    let body = bytes(&message, Flags::default(), &targets);
    let read = MessageRecord::decode(&body).unwrap();
    assert_eq!(read.targets().count(), targets.len());
    assert_eq!(
        read.targets()
            .filter(|target| target.group.is_some())
            .count(),
        1
    );
    targets.clear();
    assert!(targets.is_empty() && targets.push(&other));
    // The same session once more, through a group.
    let again = Target {
        group: Some("$share/again"),
        ..other
    };
    assert!(!targets.push(&again));
    assert_eq!(targets.len(), 1);
}
