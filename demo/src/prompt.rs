//! What the stand-in LLM answers: the words fit the question, and the same question gets the same words.

/// Characters that one token stands for, roughly, in the tokenisers of current models.
const CHARACTERS_PER_TOKEN: usize = 4;

/// A believable token count of a text.
pub fn tokens(text: &str) -> u64 {
    text.len().div_ceil(CHARACTERS_PER_TOKEN).max(1) as u64
}

/// An answer to the last message of a conversation.
pub fn answer(question: &str) -> String {
    let topic: String = question.split_whitespace().take(12).collect::<Vec<_>>().join(" ");
    let lower = question.to_lowercase();
    if lower.contains("workflow") {
        format!(
            "Here is a workflow for \"{topic}\": 1. TRIGGER: start when a message arrives. 2. AI_AGENT: read it and write a \
             summary of three sentences with the decision that is asked for. 3. EXTERNAL_ACTION: post the summary to the \
             team's channel and store the outcome. Retry the last step twice before it counts as failed."
        )
    } else if lower.contains("summar") {
        format!(
            "Summary: {topic}. The customer expects an answer today; the amount is within the limit; nobody has to approve it."
        )
    } else {
        format!(
            "About \"{topic}\": I looked at what you sent. The short answer is yes, and the next step is to confirm the date."
        )
    }
}

/// The answer in the pieces that a streaming model sends.
pub fn pieces(answer: &str) -> impl Iterator<Item = &str> {
    answer.split_inclusive(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_add_up_to_the_answer() {
        let answer = answer("make me a workflow that greets");
        assert_eq!(pieces(&answer).collect::<String>(), answer);
        assert!(pieces(&answer).count() > 10);
    }

    #[test]
    fn no_text_is_still_a_token() {
        assert_eq!(tokens(""), 1);
        assert_eq!(tokens("12345678"), 2);
    }
}
