//! The entries of some devices, copied out side by side.
//!
//! In a generation entries lie in the order in which they came, those of one device all over it. To
//! follow them there is to wait for memory at every step: that was half of what making a file took.
//! To go over all of them once, note of which part of the devices each is, and copy part after part
//! is much quicker. There are four parts, or up to nine where devices with many samples fit badly.

use std::ops::Range;

use uuid::Uuid;

use super::slot::{Device, Entry, Sender, Slot, place};
use super::{ENTRY_BYTES, Generation, SAMPLE_BYTES};

/// Parts into which the devices of a generation are divided: a copy takes about so much less
/// memory than the generation.
const PARTS: usize = 4;

/// Bytes below which a part is not worth while.
const PART_BYTES_MIN: usize = 64 * 1024;

/// Entries with their samples, those of a generation or of a part of its devices.
#[derive(Clone, Copy)]
pub(super) struct Lists<'g> {
    entries: &'g [Entry],
    samples: &'g [Slot],
    senders: &'g [Sender],
}

impl<'g> Lists<'g> {
    /// The entry at a place, and who sent it.
    #[inline]
    pub(super) fn entry(self, at: u32) -> Option<(&'g Entry, &'g Sender)> {
        let entry = self.entries.get(place(at))?;
        Some((entry, self.senders.get(place(entry.sender))?))
    }

    #[inline]
    pub(super) fn sample(self, at: u32) -> Option<Slot> {
        self.samples.get(place(at)).copied()
    }

    /// The samples of an entry.
    #[inline]
    pub(super) fn slots(self, at: u32) -> &'g [Slot] {
        let begin = |at: usize| self.entries.get(at).map(|entry| place(entry.begin));
        let end = begin(place(at) + 1).unwrap_or(self.samples.len());
        let begin = begin(place(at)).unwrap_or(end);
        self.samples.get(begin..end).unwrap_or_default()
    }
}

/// The devices of a generation in order, cut into parts.
pub(super) struct Parts<'g> {
    generation: &'g Generation,
    devices: Vec<(Uuid, u32)>,
    cuts: std::vec::IntoIter<Cut>,
    copy: Copied,
}

/// Devices of a part, by their order, and the places of their entries; `None`: of one device that
/// has more than a part may have. It is not copied: of those there are three at most, and each is
/// found among all entries in one pass.
struct Cut {
    devices: Range<usize>,
    entries: Option<Vec<u32>>,
}

/// What a part is copied to; used again for the next one.
#[derive(Default)]
struct Copied {
    entries: Vec<Entry>,
    samples: Vec<Slot>,
    /// How many of both belong to the part.
    used: Place,
    /// By the number of a device: where what comes next of it goes.
    next: Vec<Option<Place>>,
}

#[derive(Clone, Copy, Default)]
struct Place {
    entry: u32,
    sample: u32,
}

/// A part: its devices in order, and where their entries are.
pub(super) struct Part<'p> {
    pub(super) devices: &'p [(Uuid, u32)],
    pub(super) lists: Lists<'p>,
    known: &'p [Device],
    /// Where the entries of each device end, by its number; `None` if nothing was copied.
    ends: Option<&'p [Option<Place>]>,
}

impl Part<'_> {
    /// Where the entries of a device are, perhaps among others.
    pub(super) fn entries_of(&self, device: u32) -> Range<u32> {
        let Some(ends) = self.ends else {
            return 0..u32::try_from(self.lists.entries.len()).unwrap_or(u32::MAX);
        };
        let end = ends.get(place(device)).copied().flatten();
        let end = end.map_or(0, |end| end.entry);
        let count = self
            .known
            .get(place(device))
            .map_or(0, |known| known.entries);
        end.saturating_sub(count)..end
    }
}

impl<'g> Parts<'g> {
    pub(super) fn of(generation: &'g Generation) -> Self {
        let devices = generation.devices.iter();
        let mut devices: Vec<(Uuid, u32)> = devices.map(|(id, number)| (*id, *number)).collect();
        devices.sort_unstable();
        let cuts = generation.cut(&devices);
        Self {
            generation,
            devices,
            cuts: cuts.into_iter(),
            copy: Copied::default(),
        }
    }

    /// The next devices in order.
    pub(super) fn next(&mut self) -> Option<Part<'_>> {
        let cut = self.cuts.next()?;
        let devices = self.devices.get(cut.devices).unwrap_or_default();
        let known = &self.generation.known;
        let Some(entries) = cut.entries else {
            return Some(Part {
                devices,
                lists: self.generation.lists(),
                known,
                ends: None,
            });
        };
        self.copy.fill(self.generation, devices, &entries);
        Some(Part {
            devices,
            lists: self.copy.lists(self.generation),
            known,
            ends: Some(&self.copy.next),
        })
    }

    #[cfg(test)]
    pub(super) fn count(mut self) -> usize {
        std::iter::from_fn(|| self.next().map(drop)).count()
    }
}

fn bytes_of(entries: usize, samples: usize) -> usize {
    entries * ENTRY_BYTES + samples * SAMPLE_BYTES
}

impl Copied {
    fn fill(&mut self, generation: &Generation, devices: &[(Uuid, u32)], entries: &[u32]) {
        self.next.clear();
        self.next.resize(generation.known.len(), None);
        let mut end = Place::default();
        for (_, device) in devices {
            let Some(next) = self.next.get_mut(place(*device)) else {
                continue;
            };
            *next = Some(end);
            if let Some(known) = generation.known.get(place(*device)) {
                end.entry += known.entries;
                end.sample += known.samples;
            }
        }
        self.used = end;
        // What was copied before is written over.
        make_long(&mut self.entries, place(end.entry));
        make_long(&mut self.samples, place(end.sample));
        let lists = generation.lists();
        for &at in entries {
            if let Some((entry, sender)) = lists.entry(at)
                && let Some(Some(next)) = self.next.get_mut(place(sender.device))
            {
                let begin = next.sample;
                if let Some(copy) = self.entries.get_mut(place(next.entry)) {
                    *copy = Entry { begin, ..*entry };
                }
                next.entry += 1;
                let slots = lists.slots(at);
                let copies = self.samples.get_mut(place(begin)..).unwrap_or_default();
                for (copy, slot) in copies.iter_mut().zip(slots) {
                    *copy = *slot;
                    next.sample += 1;
                }
            }
        }
    }

    fn lists<'p>(&'p self, generation: &'p Generation) -> Lists<'p> {
        let entries = self.entries.get(..place(self.used.entry));
        let samples = self.samples.get(..place(self.used.sample));
        Lists {
            entries: entries.unwrap_or_default(),
            samples: samples.unwrap_or_default(),
            senders: &generation.senders,
        }
    }
}

/// Lengthens a list, by no more than that takes.
fn make_long<T: Clone + Default>(list: &mut Vec<T>, len: usize) {
    if list.len() < len {
        list.reserve_exact(len - list.len());
        list.resize(len, T::default());
    }
}

impl Generation {
    /// Cuts its devices into parts of about the same bytes, and deals its entries to them.
    fn cut(&self, devices: &[(Uuid, u32)]) -> Vec<Cut> {
        let bytes = bytes_of(self.entries.len(), self.samples.len());
        let bytes_max = bytes.div_ceil(PARTS).max(PART_BYTES_MIN);
        let mut cuts: Vec<Cut> = Vec::new();
        let mut bytes = 0;
        // By the number of a device: its part.
        let mut of_device = vec![0_u32; self.known.len()];
        for (at, (_, device)) in devices.iter().enumerate() {
            let known = self.known.get(place(*device));
            let own = known.map_or(0, |known| {
                bytes_of(place(known.entries), place(known.samples))
            });
            bytes += own;
            match cuts.last_mut() {
                Some(last) if bytes <= bytes_max => last.devices.end = at + 1,
                _ => {
                    bytes = own;
                    let devices = at..at + 1;
                    let entries = (own <= bytes_max).then(Vec::new);
                    cuts.push(Cut { devices, entries });
                }
            }
            if let Some(part) = of_device.get_mut(place(*device)) {
                *part = u32::try_from(cuts.len() - 1).unwrap_or(u32::MAX);
            }
        }
        for cut in &mut cuts {
            let devices = devices.get(cut.devices.clone()).unwrap_or_default();
            let known = devices
                .iter()
                .filter_map(|(_, device)| self.known.get(place(*device)));
            if let Some(entries) = &mut cut.entries {
                entries.reserve_exact(known.map(|known| place(known.entries)).sum());
            }
        }
        let lists = self.lists();
        for at in 0..u32::try_from(self.entries.len()).unwrap_or(u32::MAX) {
            if let Some((_, sender)) = lists.entry(at)
                && let Some(part) = of_device.get(place(sender.device))
                && let Some(cut) = cuts.get_mut(place(*part))
                && let Some(entries) = &mut cut.entries
            {
                entries.push(at);
            }
        }
        cuts
    }

    /// All entries as they came.
    #[inline]
    pub(super) fn lists(&self) -> Lists<'_> {
        Lists {
            entries: &self.entries,
            samples: &self.samples,
            senders: &self.senders,
        }
    }
}
