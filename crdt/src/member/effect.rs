//! Which records count: all but those that a removal made void, and those whose author's right was void.
//!
//! A removal takes the effect of what the removed admin wrote apart from it, so that nobody who was removed comes back
//! by a record that pretends to be older. Records that were made void are no ground for others: who was admitted by one is no
//! member, and what such a member signed is void, too. Where removals void each other in a circle (two admins
//! who remove one another), all of them count and everything else in the circle does not.
//!
//! That is one pass over the graph of "needs to be judged first", part by part, each part being what depends on itself.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::Graph;
use super::place::Places;

enum Task {
    /// Records of which is to be seen what depends on what.
    Split(Vec<usize>),
    /// Records that depend on one another and on nothing that is not decided.
    Decide(Vec<usize>),
}

impl Graph {
    /// The records of `within`, which holds the past of each, that count when there is nothing else.
    pub(super) fn effective(&self, within: &Places) -> Places {
        let disputed = self.disputed().any(|(place, foes)| {
            within.contains(place) && foes.iter().any(|foe| within.contains(*foe))
        });
        if !disputed {
            return within.clone();
        }
        let all = (0..self.len()).filter(|place| within.contains(*place));
        let mut effective = Places::default();
        let mut work = vec![Task::Split(all.collect())];
        while let Some(task) = work.pop() {
            match task {
                Task::Split(set) => {
                    let parts = self.parts(&set);
                    work.extend(parts.into_iter().rev().map(Task::Decide));
                }
                Task::Decide(part) => {
                    if let Some(rest) = self.decide(part, &mut effective) {
                        work.push(Task::Split(rest));
                    }
                }
            }
        }
        effective
    }

    /// Decides a part. What remains of it when some of it turned out to be void must be split again.
    fn decide(&self, part: Vec<usize>, effective: &mut Places) -> Option<Vec<usize>> {
        let open: BTreeSet<usize> = part.iter().copied().collect();
        let (void, rest): (Vec<usize>, Vec<usize>) = part.into_iter().partition(|place| {
            let counts = |at: usize| effective.contains(at) || open.contains(&at);
            self.is_attacked(*place, effective) || !self.is_permitted(*place, &counts)
        });
        if !void.is_empty() {
            return (!rest.is_empty()).then_some(rest);
        }
        if rest.len() == 1 {
            effective.extend(rest);
            return None;
        }
        let removes = |place: &usize| {
            self.node(*place)
                .is_some_and(|node| node.record.unseats().is_some())
        };
        let (removals, mut others): (Vec<usize>, Vec<usize>) = rest.into_iter().partition(removes);
        effective.extend(removals);
        // The same order everywhere, parents first.
        others.sort_by_key(|place| {
            self.node(*place)
                .map(|node| (node.past.len(), node.record.hash))
        });
        for place in others {
            let counts = |at: usize| effective.contains(at);
            if !self.is_attacked(place, effective) && self.is_permitted(place, &counts) {
                effective.insert(place);
            }
        }
        None
    }

    fn is_attacked(&self, place: usize, effective: &Places) -> bool {
        self.foes(place).iter().any(|foe| effective.contains(*foe))
    }

    /// Whether the author may have written it, by those records of its past that `counts`.
    pub(super) fn is_permitted(&self, place: usize, counts: &dyn Fn(usize) -> bool) -> bool {
        self.node(place).is_some_and(|node| {
            // The founding record needs no permission.
            node.record.parents.is_empty() || self.permits(&node.record, &node.past, counts)
        })
    }

    /// Puts records into parts that depend on themselves, each after those that it depends on (Tarjan).
    fn parts(&self, set: &[usize]) -> Vec<Vec<usize>> {
        let mut search = Search {
            open: set.iter().copied().collect(),
            ..Search::default()
        };
        for root in set {
            if search.seen.contains_key(root) {
                continue;
            }
            let mut path = vec![search.enter(self, *root)];
            while let Some(step) = path.last_mut() {
                match step.needs.pop() {
                    Some(need) if !search.seen.contains_key(&need) => {
                        path.push(search.enter(self, need));
                    }
                    Some(need) => step.low = step.low.min(search.mark(need)),
                    None => {
                        let (place, low) = (step.place, step.low);
                        path.pop();
                        if let Some(before) = path.last_mut() {
                            before.low = before.low.min(low);
                        }
                        search.leave(place, low);
                    }
                }
            }
        }
        search.parts
    }
}

/// A depth-first search for parts that depend on themselves.
#[derive(Default)]
struct Search {
    open: BTreeSet<usize>,
    /// The order of discovery; `None` once it is in a part.
    seen: BTreeMap<usize, Option<usize>>,
    stack: Vec<usize>,
    parts: Vec<Vec<usize>>,
}

struct Step {
    place: usize,
    needs: Vec<usize>,
    low: usize,
}

impl Search {
    fn enter(&mut self, graph: &Graph, place: usize) -> Step {
        let number = self.seen.len();
        self.seen.insert(place, Some(number));
        self.stack.push(place);
        let needs = graph.foes(place).iter().copied();
        Step {
            place,
            needs: needs
                .chain(graph.grounds(place))
                .filter(|need| self.open.contains(need))
                .collect(),
            low: number,
        }
    }

    /// The number that counts for the search's low mark.
    fn mark(&self, place: usize) -> usize {
        self.seen
            .get(&place)
            .copied()
            .flatten()
            .unwrap_or(usize::MAX)
    }

    fn leave(&mut self, place: usize, low: usize) {
        if self.mark(place) != low {
            return;
        }
        let mut part = Vec::new();
        while let Some(member) = self.stack.pop() {
            self.seen.insert(member, None);
            part.push(member);
            if member == place {
                break;
            }
        }
        part.sort_unstable();
        self.parts.push(part);
    }
}
