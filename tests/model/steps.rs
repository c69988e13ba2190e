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
    },
    /// With DISCONNECT, or by ending the socket.
    End {
        client: usize,
        politely: bool,
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
    // The same for every connection of a client: what a smaller window does, another test shows.
    let windows: Vec<u16> = (0..clients)
        .map(|_| [1, 2, 3, 20][random.below(4)])
        .collect();
    let mut steps: Vec<Step> = (0..clients)
        .map(|client| connect(&mut random, client, windows[client]))
        .collect();
    for client in 0..clients {
        steps.push(subscribe(&mut random, client, filters));
    }
    while steps.len() < STEPS {
        let client = random.below(clients);
        steps.push(match random.below(20) {
            0..=2 => connect(&mut random, client, windows[client]),
            3 => Step::End {
                client,
                politely: random.one_in(2),
            },
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

fn connect(random: &mut Random, client: usize, window: u16) -> Step {
    Step::Connect {
        client,
        clean: random.one_in(4),
        is_kept: !random.one_in(4),
        window,
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
