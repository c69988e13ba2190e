//! Filters with wildcards, level by level.
//!
//! A node stands for a path of filter levels. `+` is a child of its own, `#` a mark on the node
//! above it (so that `a/#` matches `a` without extra work). Literal children of all nodes lie in
//! one hash table, under the node and the level. Walking and storing are iterative (SEC-09).
//!
//! Invariant: a node other than the root carries a filter or has a child.

use std::hash::{BuildHasher, RandomState};

use slab::Slab;

use super::table::{NONE, Table, fold};

/// The node all paths begin at.
const ROOT: u32 = 0;

/// Bytes that a node takes beside the text of its level: itself, its slot in the table, the
/// allocator's share.
pub(super) const NODE_BYTES: usize = size_of::<Node>() + 12 + 16;

/// Filters by path.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Slab<Node>,
    edges: Table,
}

#[derive(Debug)]
struct Node {
    /// Empty for the root and for `+`.
    level: Box<str>,
    parent: u32,
    /// How many literal children there are.
    children: u32,
    /// The child for `+`.
    plus: u32,
    /// The filter that ends here.
    here: u32,
    /// The filter that goes on with `#` and ends.
    below: u32,
}

const _: () = assert!(size_of::<Node>() == 40);

impl Node {
    fn new(level: &str, parent: u32) -> Node {
        Node {
            level: level.into(),
            parent,
            children: 0,
            plus: NONE,
            here: NONE,
            below: NONE,
        }
    }

    fn is_leaf(&self) -> bool {
        self.children == 0 && self.plus == NONE && self.here == NONE && self.below == NONE
    }
}

impl Trie {
    pub(super) fn new() -> Trie {
        let mut nodes = Slab::new();
        nodes.insert(Node::new("", NONE));
        Trie {
            nodes,
            edges: Table::default(),
        }
    }

    /// The number stored for this filter.
    pub(super) fn find(&self, hasher: &RandomState, filter: &str) -> Option<u32> {
        let mut at = ROOT;
        for level in filter.split('/') {
            at = match level {
                "#" => return stored(self.node(at)?.below),
                "+" => stored(self.node(at)?.plus)?,
                _ => self.child(at, level, hasher.hash_one(level))?,
            };
        }
        stored(self.node(at)?.here)
    }

    /// Stores a number for a filter that has none. Returns the bytes that new nodes take; `None`,
    /// with nothing stored, when there are no node numbers left.
    pub(super) fn insert(
        &mut self,
        hasher: &RandomState,
        filter: &str,
        number: u32,
    ) -> Option<usize> {
        let most = u32::try_from(self.nodes.len() + crate::mqtt::topic::TOPIC_LEVELS_MAX);
        most.ok().filter(|&most| most < NONE)?;
        let mut bytes = 0;
        let mut at = ROOT;
        for level in filter.split('/') {
            let known = match level {
                "#" => {
                    self.node_mut(at)?.below = number;
                    return Some(bytes);
                }
                "+" => stored(self.node(at)?.plus),
                _ => self.child(at, level, hasher.hash_one(level)),
            };
            at = match known {
                Some(child) => child,
                None => {
                    bytes += NODE_BYTES + level.len();
                    self.add(hasher, at, level)?
                }
            };
        }
        self.node_mut(at)?.here = number;
        Some(bytes)
    }

    /// Forgets the number of a filter. Returns the bytes of the nodes that went with it.
    pub(super) fn remove(&mut self, hasher: &RandomState, filter: &str) -> usize {
        let Some(mut at) = self.unmark(hasher, filter) else {
            return 0;
        };
        let mut bytes = 0;
        while at != ROOT && self.node(at).is_some_and(Node::is_leaf) {
            let Some(node) = usize::try_from(at)
                .ok()
                .and_then(|key| self.nodes.try_remove(key))
            else {
                break;
            };
            let is_plus = self
                .node(node.parent)
                .is_some_and(|parent| parent.plus == at);
            if !is_plus {
                let hash = hasher.hash_one(&*node.level);
                self.edges.remove(edge_hash(node.parent, hash), at);
            }
            if let Some(parent) = self.node_mut(node.parent) {
                match is_plus {
                    true => parent.plus = NONE,
                    false => parent.children -= 1,
                }
            }
            bytes += NODE_BYTES + if is_plus { 1 } else { node.level.len() };
            at = node.parent;
        }
        // The root itself may carry `#`.
        if self.nodes.len() == 1 && self.node(ROOT).is_some_and(Node::is_leaf) {
            *self = Trie::new(); // gives back what the peak took
        }
        bytes
    }

    /// Calls `hit` with the number of every filter that matches the topic, and returns how many
    /// nodes were looked at. `stack` is scratch.
    ///
    /// Visits the nodes whose path matches a beginning of the topic and no others: at most two
    /// children of each, whatever else is stored.
    #[inline]
    pub(super) fn visit(
        &self,
        hasher: &RandomState,
        (levels, topic): (&mut Levels, &str),
        stack: &mut Vec<(u32, u32)>,
        mut hit: impl FnMut(u32),
    ) -> usize {
        stack.clear();
        stack.push((ROOT, 0));
        let mut visited = 0;
        while let Some((at, depth)) = stack.pop() {
            visited += 1;
            let Some(node) = self.node(at) else {
                continue;
            };
            if node.below != NONE {
                hit(node.below);
            }
            if depth == levels.count() {
                if node.here != NONE {
                    hit(node.here);
                }
                continue;
            }
            if node.plus != NONE {
                stack.push((node.plus, depth + 1));
            }
            if node.children > 0
                && let Some((level, hash)) = levels.get(hasher, topic, depth)
                && let Some(child) = self.child(at, level, hash)
            {
                stack.push((child, depth + 1));
            }
        }
        visited
    }

    /// True if there is nothing but a root without marks.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.len() == 1 && self.node(ROOT).is_some_and(Node::is_leaf)
    }

    /// Clears the mark of a filter and returns the node that had it.
    fn unmark(&mut self, hasher: &RandomState, filter: &str) -> Option<u32> {
        let mut at = ROOT;
        for level in filter.split('/') {
            at = match level {
                "#" => {
                    self.node_mut(at)?.below = NONE;
                    return Some(at);
                }
                "+" => stored(self.node(at)?.plus)?,
                _ => self.child(at, level, hasher.hash_one(level))?,
            };
        }
        self.node_mut(at)?.here = NONE;
        Some(at)
    }

    fn add(&mut self, hasher: &RandomState, parent: u32, level: &str) -> Option<u32> {
        let text = if level == "+" { "" } else { level };
        let key = self.nodes.insert(Node::new(text, parent));
        let child = u32::try_from(key).ok()?;
        if level == "+" {
            self.node_mut(parent)?.plus = child;
        } else {
            let hash = hasher.hash_one(level);
            self.edges.insert(edge_hash(parent, hash), child);
            self.node_mut(parent)?.children += 1;
        }
        Some(child)
    }

    #[inline]
    fn child(&self, parent: u32, level: &str, hash: u64) -> Option<u32> {
        self.edges.find(edge_hash(parent, hash), |number| {
            self.node(number)
                .is_some_and(|node| node.parent == parent && &*node.level == level)
        })
    }

    #[inline]
    fn node(&self, number: u32) -> Option<&Node> {
        self.nodes.get(usize::try_from(number).ok()?)
    }

    fn node_mut(&mut self, number: u32) -> Option<&mut Node> {
        self.nodes.get_mut(usize::try_from(number).ok()?)
    }
}

/// Where the levels of a topic begin and end, and their hashes once somebody asked.
#[derive(Debug, Default)]
pub(super) struct Levels {
    spans: Vec<Span>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
    /// 0 until it is needed; a hash that is 0 is just worked out again.
    hash: u64,
}

impl Levels {
    /// Takes the levels of a topic, of at most 2^32 bytes.
    pub(super) fn read(&mut self, topic: &str) {
        self.spans.clear();
        let length = |text: usize| u32::try_from(text).unwrap_or(u32::MAX);
        let mut start = 0;
        let slashes = topic.bytes().enumerate().filter(|&(_, byte)| byte == b'/');
        for (at, _) in slashes {
            let end = length(at);
            self.spans.push(Span {
                start,
                end,
                hash: 0,
            });
            start = end + 1;
        }
        let end = length(topic.len());
        self.spans.push(Span {
            start,
            end,
            hash: 0,
        });
    }

    fn count(&self) -> u32 {
        u32::try_from(self.spans.len()).unwrap_or(u32::MAX)
    }

    /// A level of the topic that was read, with its hash.
    #[inline]
    pub(super) fn get<'a>(
        &mut self,
        hasher: &RandomState,
        topic: &'a str,
        depth: u32,
    ) -> Option<(&'a str, u64)> {
        let span = self.spans.get_mut(usize::try_from(depth).ok()?)?;
        let range = usize::try_from(span.start).ok()?..usize::try_from(span.end).ok()?;
        let level = topic.get(range)?;
        if span.hash == 0 {
            span.hash = hasher.hash_one(level);
        }
        Some((level, span.hash))
    }
}

/// Of equal levels below different nodes, too, each has its own place.
#[inline]
fn edge_hash(parent: u32, level: u64) -> u32 {
    let mixed = level.wrapping_add(u64::from(parent).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    fold(mixed ^ mixed >> 32)
}

#[inline]
fn stored(number: u32) -> Option<u32> {
    (number != NONE).then_some(number)
}
