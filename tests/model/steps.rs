//! Random steps from a seed: the same seed makes the same steps.

/// How long a sequence is.
const STEPS: usize = 30;

/// One thing that happens. Numbers are places in the lists of the driver.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Connect {
        client: usize,
        clean: bool,
        is_kept: bool,
        window: u16,
        will: Option<WillStep>,
    },
    End {
        client: usize,
        how: How,
    },
    Subscribe {
        client: usize,
        filter: usize,
        options: super::reference::Options,
    },
    Unsubscribe {
        client: usize,
        filter: usize,
    },
    /// With the whole handshake; an empty payload clears what is retained.
    Publish {
        client: usize,
        topic: usize,
        qos: u8,
        retain: bool,
        is_empty: bool,
    },
    /// QoS 2 as far as PUBREC.
    Begin {
        client: usize,
        topic: usize,
    },
    /// The same PUBLISH again, with DUP.
    Repeat {
        client: usize,
    },
    /// PUBREL for it.
    Release {
        client: usize,
    },
    /// Ends the oldest delivery that is open: acknowledgements have an order [MQTT-4.6.0-2].
    Settle {
        client: usize,
    },
    /// PUBREC without PUBCOMP for the oldest delivery of QoS 2 that had none.
    Receive {
        client: usize,
    },
    /// The narrow client may do less from now on.
    Narrow,
    /// The narrow client may do nothing any more.
    Revoke,
    /// SUBSCRIBE to the share group.
    Join {
        client: usize,
        qos: u8,
    },
    Leave {
        client: usize,
    },
    /// To the topic of the share group.
    Share {
        client: usize,
        qos: u8,
    },
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// With DISCONNECT.
    Goodbye,
    /// With DISCONNECT and reason 4, in MQTT 5.
    GoodbyeWithWill,
    /// By ending the socket.
    Lost,
}

/// A will, without its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WillStep {
    pub(crate) topic: usize,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) is_delayed: bool,
}

/// What a sequence is about, beside what all are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    Nothing,
    Wills,
    Rights,
    Shares,
}

/// A small generator (xorshift64*), so that a seed means the same for ever.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..4 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, count: usize) -> usize {
        let count = u64::try_from(count).expect("a count");
        usize::try_from((self.next() >> 11) % count).expect("below a usize")
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn small(&mut self, count: usize) -> u8 {
        u8::try_from(self.below(count)).expect("small")
    }
}

/// The steps of a seed.
pub(crate) fn steps(seed: u64, clients: usize, topics: usize, filters: usize) -> Vec<Step> {
    let mut random = Random::new(seed);
    let about = match random.below(16) {
        0..=5 => About::Nothing,
        6..=9 => About::Wills,
        10..=11 => About::Rights,
        _ => About::Shares,
    };
    // The same for every connection of a client: what a smaller window does, another test shows.
    // What a share group hands on must not wait where nobody sees it.
    let windows: Vec<u16> = (0..clients)
        .map(|_| match about {
            About::Shares => 1_000,
            _ => [1, 2, 3, 20][random.below(4)],
        })
        .collect();
    let wills = match about {
        About::Wills | About::Rights => topics,
        _ => 0,
    };
    let mut steps: Vec<Step> = (0..clients)
        .map(|client| connect(&mut random, client, windows[client], wills))
        .collect();
    for client in 0..clients {
        steps.push(subscribe(&mut random, client, filters));
        if about == About::Shares && !random.one_in(3) {
            let qos = random.small(3);
            steps.push(Step::Join { client, qos });
        }
    }
    while steps.len() < STEPS {
        let client = random.below(clients);
        if about != About::Nothing && random.one_in(3) {
            steps.push(special(&mut random, about, client, windows[client], wills));
            continue;
        }
        steps.push(match random.below(20) {
            0..=2 => connect(&mut random, client, windows[client], wills),
            3 => end(&mut random, client),
            4..=6 => subscribe(&mut random, client, filters),
            7 => Step::Unsubscribe {
                client,
                filter: random.below(filters),
            },
            8..=13 => Step::Publish {
                client,
                topic: random.below(topics),
                qos: random.small(3),
                retain: random.one_in(3),
                is_empty: random.one_in(6),
            },
            14 => Step::Begin {
                client,
                topic: random.below(topics),
            },
            15 => Step::Repeat { client },
            16 => Step::Release { client },
            17 => Step::Receive { client },
            _ => Step::Settle { client },
        });
    }
    steps
}

fn special(random: &mut Random, about: About, client: usize, window: u16, wills: usize) -> Step {
    let qos = random.small(3);
    match (about, random.below(8)) {
        (About::Rights, 0) => Step::Narrow,
        (About::Rights, 1) if random.one_in(2) => Step::Revoke,
        (About::Shares, 0..=3) => Step::Share { client, qos },
        (About::Shares, 4) => Step::Join { client, qos },
        (About::Shares, 5) if random.one_in(2) => Step::Leave { client },
        (_, 0..=3) => connect(random, client, window, wills),
        _ => end(random, client),
    }
}

fn end(random: &mut Random, client: usize) -> Step {
    let how = [How::Goodbye, How::GoodbyeWithWill, How::Lost][random.below(3)];
    Step::End { client, how }
}

/// With a will on one of so many topics, at times.
fn connect(random: &mut Random, client: usize, window: u16, wills: usize) -> Step {
    let clean = random.one_in(4);
    let is_kept = !random.one_in(4);
    let will = (wills > 0 && !random.one_in(3)).then(|| WillStep {
        topic: random.below(wills),
        qos: random.small(3),
        retain: random.one_in(3),
        is_delayed: random.one_in(3),
    });
    Step::Connect {
        client,
        clean,
        is_kept,
        window,
        will,
    }
}

fn subscribe(random: &mut Random, client: usize, filters: usize) -> Step {
    let filter = random.below(filters);
    Step::Subscribe {
        client,
        filter,
        options: super::reference::Options {
            qos: random.small(3),
            no_local: random.one_in(4),
            as_published: random.one_in(3),
            retain_handling: random.small(3),
            id: if random.one_in(2) {
                u8::try_from(filter + 1).expect("few")
            } else {
                0
            },
        },
    }
}
