//! What was computed once, by the tokens it was computed for: a tree whose edges are the tokens of one block. A sequence
//! that begins as another did takes its blocks; of a block in which they part it takes what they share. Tokens are
//! compared themselves, so nothing is taken for what it is not. Least recently used leaves go first.

use super::blocks::{BLOCK, KvBlock};
use crate::engine::TokenId;
use std::collections::HashMap;
use std::sync::Arc;

type Id = u64;
/// The node that stands before all.
const ROOT: Id = 0;

struct Node {
    parent: Id,
    /// 1 to 256; fewer than 256 only in a leaf.
    tokens: Box<[TokenId]>,
    block: Option<Arc<KvBlock>>,
    children: Vec<Id>,
    used: u64,
}

pub struct PrefixTree {
    nodes: HashMap<Id, Node>,
    next: Id,
    clock: u64,
}

impl Default for PrefixTree {
    fn default() -> Self {
        let root = Node { parent: ROOT, tokens: [].into(), block: None, children: Vec::new(), used: 0 };
        Self { nodes: HashMap::from([(ROOT, root)]), next: ROOT + 1, clock: 0 }
    }
}

fn common(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl PrefixTree {
    /// The child of `node` that shares most with the beginning of `tokens`, and how much.
    fn best(&self, node: Id, tokens: &[TokenId]) -> Option<(Id, usize)> {
        let children = &self.nodes.get(&node)?.children;
        children
            .iter()
            .filter_map(|id| Some((*id, common(&self.nodes.get(id)?.tokens, tokens))))
            .max_by_key(|(_, shared)| *shared)
            .filter(|(_, shared)| *shared > 0)
    }

    fn touch(&mut self, id: Id) {
        self.clock += 1;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.used = self.clock;
        }
    }

    /// Takes in a sequence's tokens and the blocks that hold them. Returns what this replaced, to be dropped by the caller.
    #[must_use]
    pub fn insert(&mut self, tokens: &[TokenId], blocks: &[Arc<KvBlock>]) -> Vec<Arc<KvBlock>> {
        let mut replaced = Vec::new();
        let mut at = ROOT;
        for (part, block) in tokens.chunks(BLOCK).zip(blocks) {
            let known = self.best(at, part).filter(|(id, shared)| {
                // All of one is in the other: the longer one stands for both.
                self.nodes.get(id).is_some_and(|node| *shared == part.len().min(node.tokens.len()))
            });
            if let Some((id, shared)) = known {
                if let Some(node) = self.nodes.get_mut(&id)
                    && shared < part.len()
                {
                    node.tokens = part.into();
                    replaced.extend(node.block.replace(block.clone()));
                }
                self.touch(id);
                at = id;
            } else {
                let id = self.next;
                self.next += 1;
                let node = Node {
                    parent: at,
                    tokens: part.into(),
                    block: Some(block.clone()),
                    children: Vec::new(),
                    used: 0,
                };
                self.nodes.insert(id, node);
                if let Some(parent) = self.nodes.get_mut(&at) {
                    parent.children.push(id);
                }
                self.touch(id);
                at = id;
            }
            if part.len() < BLOCK {
                break;
            }
        }
        replaced
    }

    /// The longest beginning of `tokens` that is known, and the blocks that hold it.
    pub fn find(&mut self, tokens: &[TokenId]) -> (usize, Vec<Arc<KvBlock>>) {
        let (mut n, mut blocks, mut at) = (0, Vec::new(), ROOT);
        while let Some((id, shared)) = self.best(at, &tokens[n..]) {
            self.touch(id);
            let Some(block) = self.nodes.get(&id).and_then(|node| node.block.clone()) else { break };
            blocks.push(block);
            n += shared;
            if shared < BLOCK {
                break;
            }
            at = id;
        }
        (n, blocks)
    }

    /// Takes out the leaf that was not used for longest; `None` where there is none.
    pub fn evict(&mut self) -> Option<Arc<KvBlock>> {
        let leaves = self.nodes.iter().filter(|(id, node)| **id != ROOT && node.children.is_empty());
        let (&id, _) = leaves.min_by_key(|(_, node)| node.used)?;
        let node = self.nodes.remove(&id)?;
        if let Some(parent) = self.nodes.get_mut(&node.parent) {
            parent.children.retain(|child| *child != id);
        }
        node.block
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::kv::blocks::BlockPool;
    use crate::engine::kv::{KvShape, KvType};

    fn blocks(n: usize) -> Vec<Arc<KvBlock>> {
        let shape = KvShape { layers: 1, heads: 1, head_dim: 32, kind: KvType::Q8_0 };
        let pool = BlockPool::new(shape, n);
        (0..n).map(|_| Arc::new(pool.take().unwrap())).collect()
    }

    #[test]
    fn what_sequences_share_is_found_up_to_the_token_where_they_part() {
        let all = blocks(6);
        let mut tree = PrefixTree::default();
        let one: Vec<TokenId> = (0..600).collect();
        let mut two = one.clone();
        two[300] = 9999;
        assert!(tree.insert(&one, &all[..3]).is_empty());
        assert!(tree.insert(&two, &all[3..]).is_empty());
        let same = |found: &[Arc<KvBlock>], expected: &[usize]| {
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(found, i)| Arc::ptr_eq(found, &all[*i]))
        };
        let (n, found) = tree.find(&one);
        assert!(n == 600 && same(&found, &[0, 1, 2]));
        // The first block is the one that was there.
        let (n, found) = tree.find(&two[..590]);
        assert!(n == 590 && same(&found, &[0, 4, 5]));
        let mut three = one.clone();
        three[299] = 9999;
        let (n, found) = tree.find(&three);
        assert!(n == 299 && found.len() == 2 && Arc::ptr_eq(&found[0], &all[0]), "{n}");
        assert_eq!(tree.find(&[7]).0, 0);
    }

    #[test]
    fn a_block_that_grew_takes_the_place_of_what_it_was_and_leaves_go_first() {
        let all = blocks(4);
        let mut tree = PrefixTree::default();
        let tokens: Vec<TokenId> = (0..400).collect();
        assert!(tree.insert(&tokens[..300], &all[..2]).is_empty());
        let replaced = tree.insert(&tokens, &[all[0].clone(), all[2].clone()]);
        assert!(replaced.len() == 1 && Arc::ptr_eq(&replaced[0], &all[1]));
        assert_eq!(tree.find(&tokens).0, 400);
        // Shorter again: nothing is lost.
        assert!(tree.insert(&tokens[..300], &all[..2]).is_empty());
        assert_eq!(tree.find(&tokens).0, 400);
        assert!(Arc::ptr_eq(&tree.evict().unwrap(), &all[2]));
        assert_eq!(tree.find(&tokens).0, 256);
        assert!(Arc::ptr_eq(&tree.evict().unwrap(), &all[0]));
        assert!(tree.evict().is_none());
    }
}
