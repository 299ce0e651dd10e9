//! Workflows: what a node is, and the ones that the agent designs.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NodeType {
    Trigger,
    AiAgent,
    ExternalAction,
}

impl NodeType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trigger => "TRIGGER",
            Self::AiAgent => "AI_AGENT",
            Self::ExternalAction => "EXTERNAL_ACTION",
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    pub id: String,
    #[serde(rename = "type")]
    pub node_type: NodeType,
    pub name: String,
}

/// Three nodes for a simple wish, up to five for a long one.
pub fn design(description: &str) -> Vec<Node> {
    let node = |at: usize, node_type, name: &str| Node {
        id: format!("node-{at}"),
        node_type,
        name: name.to_owned(),
    };
    let mut nodes = vec![
        node(1, NodeType::Trigger, "on message"),
        node(2, NodeType::AiAgent, "understand"),
    ];
    if description.split_whitespace().count() > 8 {
        nodes.push(node(nodes.len() + 1, NodeType::AiAgent, "summarise"));
    }
    nodes.push(node(nodes.len() + 1, NodeType::ExternalAction, "tell the team"));
    nodes
}

/// The type that the metrics and spans know workflows by.
pub fn kind(nodes: &[Node]) -> &'static str {
    match nodes.iter().filter(|node| node.node_type == NodeType::AiAgent).count() {
        0 => "simple",
        1 => "ai-assisted",
        _ => "complex",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_wish_has_more_nodes() {
        assert_eq!(design("greet").len(), 3);
        let long = design("a workflow that reads new tickets and tells the right team");
        assert_eq!(long.len(), 4);
        assert_eq!(kind(&long), "complex");
    }

    #[test]
    fn node_types_are_spelt_as_spans_and_contracts_spell_them() {
        for kind in [NodeType::Trigger, NodeType::AiAgent, NodeType::ExternalAction] {
            assert_eq!(serde_json::to_value(kind).expect("an enum is JSON"), kind.as_str());
        }
    }
}
