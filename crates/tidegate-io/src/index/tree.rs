//! See [`PrefixTree`].

use std::ops::{Index, IndexMut};

use smallvec::SmallVec;

/// A map from byte strings to values that finds all stored prefixes of a string in one walk along it.
///
/// A radix tree: every node but the root stands for one or more bytes, its label, and a node without a value has at
/// least two children. A walk takes one step per node, of which there are at most as many as the string has bytes,
/// and a binary search among at most 256 children; strings that are stored but are not prefixes are never looked at.
/// Nodes live in one table and refer to each other by index, so that nothing recurses and inserting moves no other
/// entry. The node of a stored string stays at its index until the string is removed.
#[derive(Debug)]
pub struct PrefixTree<V> {
    nodes: Nodes<V>,
    /// Strings stored.
    len: usize,
}

/// The place of a stored string, valid until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeId(u32);

/// What a walk looks at: one line of the processor's cache.
#[derive(Debug)]
#[repr(align(64))]
struct Node {
    label: SmallVec<[u8; 16]>,
    /// By the first byte of their label.
    children: Vec<Edge>,
    /// The least of these bytes.
    least: u8,
    has_value: bool,
    parent: NodeId,
}

const _: () = assert!(size_of::<Node>() == 64);

/// The way to a child, with so much of its label that most strings that end before it or go elsewhere are told from here:
/// the child is in another line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edge {
    first: u8,
    last: u8,
    /// Bytes of the label; [`u8::MAX`] is that many or more.
    len: u8,
    child: NodeId,
}

const _: () = assert!(size_of::<Edge>() == 8);

const ROOT: NodeId = NodeId(0);

impl<V> PrefixTree<V> {
    /// Nothing stored.
    pub fn new() -> Self {
        Self { nodes: Nodes::new(), len: 0 }
    }

    /// Number of strings stored.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of `key`.
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        self.at_mut(self.find(key)?)
    }

    /// The value of `key`, which is stored with the value that `make` gives when it is not stored yet.
    pub fn get_or_insert_with(&mut self, key: &[u8], make: impl FnOnce() -> V) -> &mut V {
        self.entry(key, make).1
    }

    /// Removes `key` and gives its value.
    pub fn remove(&mut self, key: &[u8]) -> Option<V> {
        self.remove_at(self.find(key)?)
    }

    /// Whether a stored string is a prefix of `key`.
    pub fn has_prefix_of(&self, key: &[u8]) -> bool {
        let mut has = false;
        self.visit_prefixes(key, |_| {
            has = true;
            false
        });
        has
    }

    /// Visits the values of all stored prefixes of `key`, shortest first, as long as `visit` returns true.
    #[inline]
    pub fn visit_prefixes<'v>(&'v self, key: &[u8], mut visit: impl FnMut(&'v V) -> bool) {
        let (mut id, mut rest) = (ROOT, key);
        loop {
            if let Some(value) = self.nodes.value(id)
                && !visit(value)
            {
                return;
            }
            let Some(step) = self.step(id, rest) else { return };
            (id, rest) = step;
        }
    }

    /// Visits all strings in lexical order.
    pub fn for_each(&self, mut visit: impl FnMut(&[u8], &V)) {
        let mut path = Vec::new();
        let mut ahead = vec![(ROOT, 0)];
        while let Some((id, above)) = ahead.pop() {
            let node = &self.nodes[id];
            path.truncate(above);
            path.extend_from_slice(&node.label);
            if let Some(value) = self.nodes.value(id) {
                visit(&path, value);
            }
            ahead.extend(node.children.iter().rev().map(|edge| (edge.child, path.len())));
        }
    }

    pub(super) fn at_mut(&mut self, id: NodeId) -> Option<&mut V> {
        self.nodes.values.get_mut(id.0 as usize)?.as_mut()
    }

    /// Where `key` is stored.
    pub(super) fn find(&self, key: &[u8]) -> Option<NodeId> {
        let (mut id, mut rest) = (ROOT, key);
        while !rest.is_empty() {
            (id, rest) = self.step(id, rest)?;
        }
        self.nodes[id].has_value.then_some(id)
    }

    /// Where `key` is stored, and its value; stored now when it was not.
    pub(super) fn entry(&mut self, key: &[u8], make: impl FnOnce() -> V) -> (NodeId, &mut V) {
        let id = self.make_node(key);
        let node = &mut self.nodes[id];
        self.len += usize::from(!node.has_value);
        node.has_value = true;
        (id, self.nodes.value_place(id).get_or_insert_with(make))
    }

    /// Writes the string stored at `id` to `path`.
    pub(super) fn path(&self, id: NodeId, path: &mut Vec<u8>) {
        path.clear();
        let mut at = id;
        while at != ROOT {
            path.extend(self.nodes[at].label.iter().rev());
            at = self.nodes[at].parent;
        }
        path.reverse();
    }

    /// Removes the string stored at `id` and gives its value.
    pub(super) fn remove_at(&mut self, id: NodeId) -> Option<V> {
        let value = self.nodes.values.get_mut(id.0 as usize)?.take()?;
        self.nodes[id].has_value = false;
        self.len -= 1;
        if self.nodes[id].children.is_empty() && id != ROOT {
            let parent = self.nodes[id].parent;
            self.detach(id);
            self.join_only_child(parent);
        } else {
            self.join_only_child(id);
        }
        if self.len == 0 {
            self.nodes = Nodes::new();
        }
        Some(value)
    }

    /// From a node to the child on the way to `rest`, and what is left of it there.
    #[inline]
    fn step<'k>(&self, id: NodeId, rest: &'k [u8]) -> Option<(NodeId, &'k [u8])> {
        let edge = self.nodes[id].edge(*rest.first()?).filter(|edge| edge.may_lead_to(rest))?;
        let label = self.nodes[edge.child].label.as_slice();
        let (head, rest) = rest.split_at_checked(label.len())?;
        // The first and the last byte are equal.
        (label.len() <= 2 || head == label).then_some((edge.child, rest))
    }

    /// The node of `key`, made when there is none.
    fn make_node(&mut self, key: &[u8]) -> NodeId {
        let (mut id, mut rest) = (ROOT, key);
        loop {
            let Some(&first) = rest.first() else { return id };
            let node = &mut self.nodes[id];
            let child = match node.child_place(first) {
                Ok(at) => node.children[at].child,
                Err(at) => {
                    let leaf = self.nodes.add(Node::new(rest, id));
                    self.nodes[id].insert_edge(at, Edge::new(rest, leaf));
                    return leaf;
                }
            };
            let label = &self.nodes[child].label;
            let common = label.iter().zip(rest).take_while(|(a, b)| a == b).count();
            id = if common == label.len() { child } else { self.split(child, common) };
            rest = &rest[common..];
        }
    }

    /// Puts a new node above `child` that takes the first `at` bytes of its label.
    fn split(&mut self, child: NodeId, at: usize) -> NodeId {
        let parent = self.nodes[child].parent;
        let above = Node::new(&self.nodes[child].label[..at], parent);
        let above = self.nodes.add(above);
        let below = &mut self.nodes[child];
        below.parent = above;
        below.label.drain(..at);
        below.label.shrink_to_fit();
        let edge = Edge::new(&below.label, child);
        self.nodes[above].insert_edge(0, edge);
        self.replace_child(parent, above);
        above
    }

    /// Restores the rule that a node without a value has two children: gives the label of one that has a single child
    /// to the child.
    fn join_only_child(&mut self, id: NodeId) {
        let node = &mut self.nodes[id];
        let &[Edge { child, .. }] = node.children.as_slice() else { return };
        if id == ROOT || node.has_value {
            return;
        }
        let mut label = std::mem::take(&mut node.label);
        let parent = node.parent;
        let below = &mut self.nodes[child];
        label.extend_from_slice(&below.label);
        below.label = label;
        below.parent = parent;
        self.replace_child(parent, child);
        self.nodes.free(id);
    }

    /// Makes `child` the child of `parent` that begins with the first byte of its label.
    fn replace_child(&mut self, parent: NodeId, child: NodeId) {
        let edge = Edge::new(&self.nodes[child].label, child);
        let parent = &mut self.nodes[parent];
        if let Ok(at) = parent.child_place(edge.first) {
            parent.children[at] = edge;
        }
    }

    /// Removes a node without children.
    fn detach(&mut self, id: NodeId) {
        let Node { parent, ref label, .. } = self.nodes[id];
        let first = label[0];
        let above = &mut self.nodes[parent];
        if let Ok(at) = above.child_place(first) {
            above.remove_child(at);
        }
        self.nodes.free(id);
    }
}

impl<V> Default for PrefixTree<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl Node {
    fn new(label: &[u8], parent: NodeId) -> Self {
        Self { label: SmallVec::from_slice(label), parent, children: Vec::new(), least: 0, has_value: false }
    }

    /// The way to the child that begins with `first`.
    #[inline]
    fn edge(&self, first: u8) -> Option<Edge> {
        // Letters and digits often leave no gap.
        match self.children.get(usize::from(first.wrapping_sub(self.least))) {
            Some(edge) if edge.first == first => Some(*edge),
            _ => self.child_place(first).ok().map(|at| self.children[at]),
        }
    }

    fn insert_edge(&mut self, at: usize, edge: Edge) {
        self.children.insert(at, edge);
        self.least = self.children[0].first;
    }

    fn remove_child(&mut self, at: usize) {
        self.children.remove(at);
        match self.children.first() {
            Some(edge) => self.least = edge.first,
            None => self.children = Vec::new(),
        }
    }

    /// Where the child that begins with `first` is, or would be.
    #[inline]
    fn child_place(&self, first: u8) -> Result<usize, usize> {
        self.children.binary_search_by_key(&first, |edge| edge.first)
    }
}

impl Edge {
    /// To `child`, which has this label.
    fn new(label: &[u8], child: NodeId) -> Self {
        let len = u8::try_from(label.len()).unwrap_or(u8::MAX);
        Self { first: label[0], last: label[label.len() - 1], len, child }
    }

    /// Whether `key`, which begins as the label does, may go on there.
    #[inline]
    fn may_lead_to(self, key: &[u8]) -> bool {
        self.len == u8::MAX || key.get(usize::from(self.len).wrapping_sub(1)) == Some(&self.last)
    }
}

/// The table of nodes. Holds the root always; a [`NodeId`] in use is an index into it.
#[derive(Debug)]
struct Nodes<V> {
    table: Vec<Node>,
    /// By node, as far as there are any; a walk looks at few of them.
    values: Vec<Option<V>>,
    /// First of the unused nodes, linked by `parent`; the root when there is none.
    unused: NodeId,
}

impl<V> Nodes<V> {
    fn new() -> Self {
        Self { table: vec![Node::new(&[], ROOT)], values: Vec::new(), unused: ROOT }
    }

    #[inline]
    fn value(&self, id: NodeId) -> Option<&V> {
        if self[id].has_value { self.values.get(id.0 as usize)?.as_ref() } else { None }
    }

    fn value_place(&mut self, id: NodeId) -> &mut Option<V> {
        let at = id.0 as usize;
        if self.values.len() <= at {
            self.values.resize_with(at + 1, || None);
        }
        &mut self.values[at]
    }

    fn add(&mut self, node: Node) -> NodeId {
        if self.unused == ROOT {
            self.table.push(node);
            return NodeId((self.table.len() - 1) as u32);
        }
        let id = self.unused;
        self.unused = self[id].parent;
        self[id] = node;
        id
    }

    fn free(&mut self, id: NodeId) {
        let unused = Node::new(&[], self.unused);
        self[id] = unused;
        self.unused = id;
    }
}

impl<V> Index<NodeId> for Nodes<V> {
    type Output = Node;

    #[inline]
    fn index(&self, id: NodeId) -> &Node {
        &self.table[id.0 as usize]
    }
}

impl<V> IndexMut<NodeId> for Nodes<V> {
    #[inline]
    fn index_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.table[id.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl<V> PrefixTree<V> {
        /// Panics unless every node but the root has a label, and a value or two children, and knows its parent, and
        /// no node is lost.
        fn check(&self) {
            let mut seen = 0;
            let mut ahead = vec![ROOT];
            while let Some(id) = ahead.pop() {
                seen += 1;
                let node = &self.nodes[id];
                assert_eq!(
                    node.has_value,
                    self.nodes.values.get(id.0 as usize).is_some_and(|value| value.is_some())
                );
                assert!(id == ROOT || node.has_value || node.children.len() > 1);
                assert!(node.children.is_sorted_by(|a, b| a.first < b.first));
                assert!(node.children.first().is_none_or(|edge| edge.first == node.least));
                for &edge in &node.children {
                    let child = &self.nodes[edge.child];
                    assert_eq!((Edge::new(&child.label, edge.child), child.parent), (edge, id));
                    ahead.push(edge.child);
                }
            }
            let mut unused = self.nodes.unused;
            while unused != ROOT {
                seen += 1;
                unused = self.nodes[unused].parent;
            }
            assert_eq!(seen, self.nodes.table.len());
        }
    }

    /// Rules: MQ-075.
    #[test]
    fn unrelated_strings_add_no_step() {
        let key = b"sensor/7/temperature";
        let steps = |unrelated: usize| {
            let mut tree = PrefixTree::new();
            tree.get_or_insert_with(b"sensor/7", || 0);
            for number in 0..unrelated {
                tree.get_or_insert_with(format!("account/{number}").as_bytes(), || 0);
            }
            std::iter::successors(Some((ROOT, &key[..])), |&(id, rest)| tree.step(id, rest)).count()
        };
        assert_eq!([1, 1000, 100_000].map(steps), [2, 2, 2]);
    }

    /// Labels of about as many bytes as an edge can count.
    #[test]
    fn long_labels_are_told_apart() {
        let key = |len: usize, last: u8| [vec![b'x'; len - 1], vec![last]].concat();
        for len in [1, 2, 3, 254, 255, 256, 257, 1000] {
            let mut tree = PrefixTree::new();
            tree.get_or_insert_with(&key(len, b'a'), || len);
            tree.check();
            let found = |key: &[u8]| tree.has_prefix_of(key);
            assert!(found(&key(len, b'a')) && found(&[key(len, b'a'), vec![7]].concat()), "{len}");
            assert!(!found(&key(len, b'b')) && !found(&vec![b'x'; len + 1]), "{len}");
            assert!(!found(&key(len, b'a')[..len - 1]), "{len}");
        }
    }

    proptest! {
        /// Against a sorted map.
        ///
        /// Rules: MQ-075.
        #[test]
        fn behaves_as_the_model(
            steps in prop::collection::vec((0u8..4, prop::collection::vec(0u8..3, 0..8)), 0..300),
        ) {
            let mut tree = PrefixTree::new();
            let mut model = BTreeMap::new();
            for (number, (step, key)) in steps.into_iter().enumerate() {
                if step == 0 {
                    prop_assert_eq!(tree.remove(&key), model.remove(&key));
                } else {
                    let value = *tree.get_or_insert_with(&key, || number);
                    prop_assert_eq!(value, *model.entry(key.clone()).or_insert(number));
                }
                tree.check();
                prop_assert_eq!(tree.len(), model.len());
                prop_assert_eq!(tree.get_mut(&key), model.get_mut(&key));
                prop_assert_eq!(tree.get_mut(&key), model.get_mut(&key));
                let prefixes: Vec<_> =
                    (0..=key.len()).filter_map(|len| model.get(&key[..len])).copied().collect();
                let mut found = Vec::new();
                tree.visit_prefixes(&key, |value| {
                    found.push(*value);
                    true
                });
                prop_assert_eq!(tree.has_prefix_of(&key), !prefixes.is_empty());
                prop_assert_eq!(found, prefixes);
                let mut all = Vec::new();
                tree.for_each(|key, value| all.push((key.to_vec(), *value)));
                prop_assert!(all.into_iter().eq(model.clone()));
                if let Some(id) = tree.find(&key) {
                    let mut path = Vec::new();
                    tree.path(id, &mut path);
                    prop_assert_eq!(path, key);
                }
            }
            for key in model.keys() {
                tree.remove(key);
            }
            prop_assert_eq!(tree.nodes.table.len(), 1);
        }
    }
}
