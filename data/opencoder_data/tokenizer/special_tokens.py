"""OpenCoder's special tokens in the order of their ids (its tokenizer configuration on the Hugging Face hub).

They follow the last SentencePiece piece: with the published 96,499 pieces their ids are 96499 to 96540. The
spelling `tool_excute` is the original's.
"""

from __future__ import annotations

ENDOFTEXT = "<|endoftext|>"
PAD = "<|pad|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
FIM_PREFIX = "<fim_prefix>"
FIM_MIDDLE = "<fim_middle>"
FIM_SUFFIX = "<fim_suffix>"
REPO_NAME = "<repo_name>"
FILE_SEP = "<file_sep>"

SPECIAL_TOKENS: tuple[str, ...] = (
    *("<|start|>", "<|end|>", "<|message|>", "<|tool_start|>", "<|tool_excute|>", "<|tool_end|>"),
    *(PAD, ENDOFTEXT, FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX, REPO_NAME, FILE_SEP),
    *("<issue_start>", "<issue_comment>", "<issue_closed>"),
    *("<jupyter_start>", "<jupyter_text>", "<jupyter_code>", "<jupyter_output>", "<jupyter_script>", "<empty_output>"),
    *("<code_to_intermediate>", "<intermediate_to_code>"),
    *("<pr>", "<pr_status>", "<pr_is_merged>", "<pr_base>", "<pr_file>", "<pr_base_code>", "<pr_diff>"),
    *("<pr_diff_hunk>", "<pr_comment>", "<pr_event_id>", "<pr_review>", "<pr_review_state>", "<pr_review_comment>"),
    *("<pr_in_reply_to_review_id>", "<pr_in_reply_to_comment_id>", "<pr_diff_hunk_comment_line>"),
    *(IM_END, IM_START),
)

# Rows of the embedding are padded to a multiple of this (96,541 -> 96,640 = 755 x 128).
VOCAB_MULTIPLE = 128
PUBLISHED_VOCAB_SIZE = 96_640
PUBLISHED_NUM_PIECES = 96_499

# ChatML with OpenCoder's default system prompt, for Hugging Face's `apply_chat_template`.
DEFAULT_SYSTEM_PROMPT = "You are OpenCoder, created by OpenCoder Team."
CHAT_TEMPLATE = (
    "{% if messages and messages[0]['role'] != 'system' %}"
    "{{ '" + IM_START + "system\\n" + DEFAULT_SYSTEM_PROMPT + IM_END + "\\n' }}"
    "{% endif %}"
    "{% for turn in messages %}"
    "{{ '" + IM_START + "' + turn['role'] + '\\n' + turn['content'] + '" + IM_END + "\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + IM_START + "assistant\\n' }}{% endif %}"
)


def padded_vocab_size(num_pieces: int) -> int:
    """Rows of the embedding for a SentencePiece model of `num_pieces` pieces."""
    return -(-(num_pieces + len(SPECIAL_TOKENS)) // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


def num_pieces_for(vocab_size: int) -> int:
    """SentencePiece pieces to train for an embedding of `vocab_size` rows.

    96,640 gives the published 96,499 pieces, so OpenCoder's ids; other sizes leave no row unused.

    Raises: ValueError for sizes that are not a multiple of 128 or too small for bytes and special tokens.
    """
    if vocab_size % VOCAB_MULTIPLE:
        near = max(1, round(vocab_size / VOCAB_MULTIPLE)) * VOCAB_MULTIPLE
        raise ValueError(f"vocab_size={vocab_size} is not a multiple of {VOCAB_MULTIPLE}; take {near}")
    if vocab_size < 3 * VOCAB_MULTIPLE:
        raise ValueError(
            f"vocab_size={vocab_size} has no space for 256 bytes and {len(SPECIAL_TOKENS)} special tokens; take 384 or more"
        )
    return PUBLISHED_NUM_PIECES if vocab_size == PUBLISHED_VOCAB_SIZE else vocab_size - len(SPECIAL_TOKENS)
