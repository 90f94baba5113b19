#!/usr/bin/env python3
"""Makes tests/fixtures/data: a small byte-level BPE tokenizer, chat templates, and what transformers makes
of them (rendered text, ids, assistant masks).

Needs transformers 5.23.0 (with jinja2) and tokenizers. Run from the repository's root.
"""
import json
import pathlib

import jinja2
import tokenizers
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

OUT = pathlib.Path("tests/fixtures/data")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<|begin_of_text|>", "<|eot_id|>",
           "<|start_header_id|>", "<|end_header_id|>"]
CORPUS = ["The seed corn is kept for the next year. It is not eaten, whatever the winter brings.",
          "What is the capital of France? The capital of France is Paris.", "Hello! How can I help you today?",
          "def f(x):\n    return x**2  # square\n", "user assistant system tool instruction input output response",
          "Answer in one word.\n\nYes.\n\nNo.\n"] * 4

# Written for this test in the styles of well-known models.
TEMPLATES = {
    "smollm": None,  # the template of SmolLM2-135M-Instruct, Apache-2.0, kept in the folder already
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}"
              "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "headers": """{{- bos_token }}
{%- for message in messages %}
    {%- if loop.index0 == 0 and message['role'] == 'system' %}
        {{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: ' + strftime_now('%d %b %Y') + '\\n\\n' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "inst": """{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- '<s>' }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if loop.last and system_message is defined %}
            {{- '[INST] ' + system_message + '\\n\\n' + message['content'] + '[/INST]' }}
        {%- else %}
            {{- '[INST] ' + message['content'] + '[/INST]' }}
        {%- endif %}
    {%- else %}
        {{- ' ' + message['content'] + '</s>' }}
    {%- endif %}
{%- endfor %}
""",
    "thinking": """{%- set ns = namespace(last_query=0) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- set ns.last_query = loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message['content'].strip() %}
    {%- if message.role == 'assistant' %}
        {%- if '</think>' in content and loop.index0 < ns.last_query %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    "generation": """{% for message in messages %}
{% if message['role'] == 'assistant' %}
{{ '<|im_start|>assistant\\n' }}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}
{%- else %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endif %}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    "plain_roles": "{% for m in messages %}{{ '### ' + m['role'] + ':\\n' + m['content'] + eos_token + '\\n' }}{% endfor %}",
    "constructs": """{%- macro show(value, depth=1) -%}
    {{- '<' ~ depth ~ ':' ~ value ~ '>' -}}
{%- endmacro %}
{%- set ns = namespace(steps=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.steps and message.role == "user" and message.content is string and not(message.content.startswith('<t>') and message.content.endswith('</t>')) %}
        {%- set ns.steps = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- set users = messages | selectattr("role", "equalto", "user") | list %}
{%- set others = [] %}
{%- for message in messages if message["role"] not in ["tool"] and not message.get("tool_calls") %}
    {%- set others = others + [message] %}
{%- endfor %}
{{- users|length ~ '/' ~ others|length ~ '/' ~ ns.last }}
{%- for message in messages %}
    {%- if loop.first or (messages[loop.index0 - 1].role != message.role) %}
        {{- '\n[' + message.role | upper + ']' }}
    {%- endif %}
    {%- if message == users[-1] %}{{- '*' }}{% endif %}
    {%- if message.tool_calls is defined and message.tool_calls %}
        {%- for call in message.tool_calls %}
            {%- set call = call.function %}
            {{- call.name + '(' }}
            {%- for key, val in call.arguments.items() if key != 'skip' %}
                {{- key + '=' }}{{ val if val is string else val | tojson }}{{ ', ' if not loop.last }}
            {%- endfor %}
            {{- ')' }}
            {{- (call.arguments | tojson)[1:-1] }}
        {%- endfor %}
    {%- else %}
        {%- set parts = message.content.split(' ') %}
        {{- show(parts | join('_')) + show(parts[0].replace('H', 'J')[:3], depth=2) }}
        {{- message.content[-2:] | string + (message.content | replace('l', 'L')).rstrip('\n').capitalize() }}
        {{- parts | first ~ parts | last ~ parts|map('length')|join(',') }}
    {%- endif %}
    {{- loop.previtem.role if loop.previtem is defined else 'none' }}
    {{- "yes" if message is mapping and message.x is not defined and message.content is iterable else "no" }}
    {%- if loop.last and add_generation_prompt %}{{ '>' * 3 }}{% endif %}
{%- endfor %}
{#- comment -#}
{%- for key, val in {'a': 1, 'b': [1, 2.5]}|items %}{{ key }}{{ val }}{% endfor %}
{% set joined %}
  in a block {{ 7 // 2 }} {{ 7 / 2 }} {{ 2 ** 3 }} {{ -7 % 3 }}
{% endset %}
{{ joined | trim }} {{ joined | length }}
{%- if tools is none and bos_token is defined and unknown is not defined %} {{ bos_token ~ eos_token }}{% endif %}
{{ 'x' in ['x'] }} {{ 'a b'.split() }} {{ [1, 2] + [3] }} {{ "con\\
tinued" }} \\
{{ "tail" }}
""",
    "tojson": "{% for m in messages %}{{ m | tojson }}\n{{ m | tojson(indent=2) }}\n{% if not loop.first %}"
              "{% break %}{% endif %}{% endfor %}{{ tools is none }}|{{ 1 == 1 }}|{{ none }}",
}

SYSTEM = {"role": "system", "content": "Be brief."}
CONVERSATIONS = {
    "single": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}],
    "system": [SYSTEM, {"role": "user", "content": "Hi <b>\"you\"</b> &  é"}, {"role": "assistant", "content": "  Hello there.\n\n"}],
    "multi": [SYSTEM, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"},
              {"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Yes.\n\nNo."}],
    "thoughts": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "<think>\none\n</think>\n\nYes"},
                 {"role": "user", "content": "b?"}, {"role": "assistant", "content": "<think>\ntwo\n</think>\n\nNo"}],
    "tools": [{"role": "user", "content": "Hi you"},
              {"role": "assistant", "content": None, "tool_calls": [
                  {"type": "function", "function": {"name": "f", "arguments": {"a": "x", "skip": 1, "b": [1, "é"]}}}]},
              {"role": "tool", "content": "3 < 4"}, {"role": "assistant", "content": "It is so."}],
    "reasoned": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes", "reasoning": "r", "x": None}],
    "open": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c?"}],
    "bad_order": [{"role": "user", "content": "a?"}, {"role": "user", "content": "b?"}],
}
TEXTS = ["Hello world! 12345 3.14", "  leading spaces\n\n\ttabs\r\n", "def f(x):\n    return x**2  # sq",
         "I'll we've DON'T it's", "Ça žluťoučký 日本語 🎉 café", "<|im_start|>user\nHi<|im_end|>\n", "x  y   z    w", ""]


def build():
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", SPECIAL.index("<s>"))])])
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=520, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    tok.save(str(OUT / "tokenizer.json"))


def main():
    import datetime
    OUT.mkdir(parents=True, exist_ok=True)
    build()
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": {"content": "<|im_end|>"},
              "pad_token": "<|endoftext|>", "clean_up_tokenization_spaces": False}
    (OUT / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    tok = transformers.PreTrainedTokenizerFast(tokenizer_file=str(OUT / "tokenizer.json"), bos_token="<s>",
                                               eos_token="<|im_end|>", pad_token="<|endoftext|>")
    # strftime_now reads the clock; the crate tells a fixed date, so the reference is rendered on that day.
    import transformers.utils.chat_template_utils as utils

    class Day(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2024, 7, 26)
    utils.datetime = Day
    # With trimmed offsets transformers finds no token at a block that begins with a space, and masks all of it.
    whole_offsets = json.loads((OUT / "tokenizer.json").read_text())
    whole_offsets["post_processor"]["processors"][0]["trim_offsets"] = False
    untrimmed = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(whole_offsets)), bos_token="<s>", eos_token="<|im_end|>")
    cases = []
    for name, source in TEMPLATES.items():
        path = OUT / f"{name}.jinja"
        if source is not None:
            path.write_text(source)
        source = path.read_text()
        for which, messages in CONVERSATIONS.items():
            for prompt in (False, True):
                case = {"template": name, "conversation": which, "add_generation_prompt": prompt}
                try:
                    case["text"] = tok.apply_chat_template(messages, chat_template=source, tokenize=False,
                                                           add_generation_prompt=prompt)
                except jinja2.exceptions.UndefinedError:
                    case["fails"] = True
                except (TypeError, jinja2.exceptions.TemplateError) as fault:
                    case["fails" if isinstance(fault, TypeError) else "raises"] = str(fault)
                if name == "generation" and not prompt and "text" in case:
                    made = untrimmed.apply_chat_template(messages, chat_template=source, tokenize=True, return_dict=True,
                                                   return_assistant_tokens_mask=True)
                    case["ids"], case["mask"] = made["input_ids"], made["assistant_masks"]
                cases.append(case)
    encode = [{"text": text, "ids": tok.encode(text, add_special_tokens=False)} for text in TEXTS]
    whole = {"versions": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
             "conversations": CONVERSATIONS, "encode": encode, "chat": cases}
    (OUT / "cases.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
