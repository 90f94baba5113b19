//! Community terms: licences of model makers that ask for more than attribution.
//!
//! Source of each entry: the text behind its link, read for what it asks of those who pass a trained model on.

use std::sync::LazyLock;

use regex::Regex;

/// Terms of a family of models.
#[derive(Debug, PartialEq, Eq)]
pub struct Terms {
    /// Id on the Hugging Face hub.
    pub id: &'static str,
    /// Title of the text.
    pub name: &'static str,
    /// Where the text is.
    pub link: &'static str,
    /// What the name of a model trained from it has to begin with.
    pub name_prefix: Option<&'static str>,
    /// What it asks of those who pass a trained model on: the rest of a sentence that begins with "They ask".
    pub asks: &'static str,
}

const LLAMA_3_1_ASKS: &str = "to pass on a copy of the agreement, to display \"Built with Llama\", to begin the name of \
    a model trained from it with \"Llama\", to keep the attribution notice, to follow the acceptable use policy, and, \
    of those with more than 700 million monthly users, to have a licence of their own from Meta";

/// Every set of terms that is recognised.
static TERMS: [Terms; 7] = [
    Terms {
        id: "llama2",
        name: "Llama 2 Community License Agreement",
        link: "https://ai.meta.com/llama/license/",
        name_prefix: None,
        asks: "to pass on a copy of the agreement, to keep the attribution notice, to follow the acceptable use \
               policy, not to use the model or its output to improve any other large language model (other than \
               Llama 2 and what derives from it), and, of those with more than 700 million monthly users, to have a \
               licence of their own from Meta",
    },
    Terms {
        id: "llama3",
        name: "Meta Llama 3 Community License Agreement",
        link: "https://llama.meta.com/llama3/license/",
        name_prefix: Some("Llama 3"),
        asks: "to pass on a copy of the agreement, to display \"Built with Meta Llama 3\", to begin the name of a \
               model trained from it with \"Llama 3\", to keep the attribution notice, to follow the acceptable use \
               policy, not to use the model or its output to improve any other large language model (other than \
               Meta Llama 3 and what derives from it), and, of those with more than 700 million monthly users, to \
               have a licence of their own from Meta",
    },
    Terms {
        id: "llama3.1",
        name: "Llama 3.1 Community License Agreement",
        link: "https://github.com/meta-llama/llama-models/blob/main/models/llama3_1/LICENSE",
        name_prefix: Some("Llama"),
        asks: LLAMA_3_1_ASKS,
    },
    Terms {
        id: "llama3.2",
        name: "Llama 3.2 Community License Agreement",
        link: "https://github.com/meta-llama/llama-models/blob/main/models/llama3_2/LICENSE",
        name_prefix: Some("Llama"),
        asks: LLAMA_3_1_ASKS,
    },
    Terms {
        id: "llama3.3",
        name: "Llama 3.3 Community License Agreement",
        link: "https://github.com/meta-llama/llama-models/blob/main/models/llama3_3/LICENSE",
        name_prefix: Some("Llama"),
        asks: LLAMA_3_1_ASKS,
    },
    Terms {
        id: "llama4",
        name: "Llama 4 Community License Agreement",
        link: "https://github.com/meta-llama/llama-models/blob/main/models/llama4/LICENSE",
        name_prefix: Some("Llama"),
        asks: LLAMA_3_1_ASKS,
    },
    Terms {
        id: "gemma",
        name: "Gemma Terms of Use",
        link: "https://ai.google.dev/gemma/terms",
        name_prefix: None,
        asks: "to pass on a copy of the terms with their notice, to bind whoever receives the model to the use \
               restrictions and the prohibited use policy, and to mark files that were changed",
    },
];

/// Llama with its version, in a licence's or a model's name whose separators are spaces.
static LLAMA: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^(?:meta )?llama ?(2|3|4|3\.[123])(?: |$)").expect("a constant pattern"));
/// Gemma 1 to 3 and what is named after them. Later versions have other licences.
static GEMMA: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:code|med|pali|recurrent|shield)?gemma(?: terms| licen[cs]e| ?1(?:\.1)?| ?2| ?3n?| \d+b|$)(?: |$|[a-z])")
        .expect("a constant pattern")
});

impl Terms {
    /// Finds terms by their id on the hub.
    pub fn of_id(id: &str) -> Option<&'static Terms> {
        TERMS.iter().find(|terms| terms.id.eq_ignore_ascii_case(id))
    }

    /// Finds terms by the name of a licence or of a model: `llama-3.1-community-license`, `Meta-Llama-3-8B`.
    ///
    /// A name that only contains the word, such as `TinyLlama`, says nothing.
    pub fn of_name(name: &str) -> Option<&'static Terms> {
        let words = name.to_lowercase().replace(['-', '_'], " ");
        if GEMMA.is_match(&words) {
            return Self::of_id("gemma");
        }
        if words.starts_with("codellama") {
            return Self::of_id("llama2");
        }
        let version = LLAMA.captures(&words)?.get(1)?.as_str();
        Self::of_id(&format!("llama{version}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_recognised_and_nothing_else() {
        let cases = [
            ("llama3.1", "llama3.1"),
            ("llama-3.2-community-license", "llama3.2"),
            ("META LLAMA 3 COMMUNITY LICENSE AGREEMENT", "llama3"),
            ("Llama-2-7b-chat-hf", "llama2"),
            ("CodeLlama-7b-hf", "llama2"),
            ("Meta Llama 3.1 8B Instruct", "llama3.1"),
            ("Llama-4-Scout-17B-16E", "llama4"),
            ("gemma", "gemma"),
            ("Gemma 2 2b It", "gemma"),
            ("gemma-3n-E2B", "gemma"),
            ("gemma-7b-it", "gemma"),
            ("gemma-terms-of-use", "gemma"),
            ("codegemma-2b", "gemma"),
        ];
        for (name, id) in cases {
            assert_eq!(Terms::of_name(name).map(|terms| terms.id), Some(id), "{name}");
        }
        for name in
            ["TinyLlama-1.1B", "OpenLLaMA 3B", "SmolLM2", "llama", "gemma-4-E4B", "llama 7b", "not llama3"]
        {
            assert_eq!(Terms::of_name(name), None, "{name}");
        }
    }

    #[test]
    fn each_has_a_link_and_asks_for_something() {
        for terms in &TERMS {
            assert!(terms.link.starts_with("https://") && terms.asks.contains("to pass on a copy"));
            assert_eq!(Terms::of_id(&terms.id.to_uppercase()), Some(terms));
        }
    }
}
