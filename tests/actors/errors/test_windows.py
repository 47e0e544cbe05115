"""An input that is too long for a model's window, in the words of each provider; and what is too large otherwise."""

from __future__ import annotations

import pytest

from actors.errors.classification import classify_status


def refused(host, status, body):
    error = classify_status(status, provider="alder", host=host, body=body)
    assert (error.kind, error.scope, error.charged) == ("Permanent", "here", "no")
    return error.concerns


def said(message, **fields):
    return {"error": {"message": message, "type": "invalid_request_error", **fields}}


@pytest.mark.parametrize(
    ("host", "status", "body"),
    [
        ("api.openai.com", 400, said("...", code="context_length_exceeded")),
        ("api.openai.com", 400, said("Your input exceeds the context window of this model. Please adjust your input.")),
        ("x.openai.azure.com", 400, said("This model's maximum context length is 8192 tokens. However, ...")),
        ("api.anthropic.com", 400, said("prompt is too long: 205000 tokens > 200000 maximum")),
        ("api.anthropic.com", 400, said("input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000")),
        (
            "generativelanguage.googleapis.com",
            400,
            said("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."),
        ),
        ("api.groq.com", 400, said("Please reduce the length of the messages or completion.")),
        ("api.groq.com", 400, said("...", code="context_length_exceeded")),
        (
            "api.mistral.ai",
            400,
            {
                "object": "error",
                "message": "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
                "code": "3051",
            },
        ),
        (
            "api.x.ai",
            400,
            {
                "code": "invalid-argument",
                "error": "This model's maximum prompt length is 131072 but the request contains 200000 tokens.",
            },
        ),
        ("api.deepseek.com", 400, said("This model's maximum context length is 65536 tokens. However, you requested")),
        (
            "api.together.xyz",
            403,
            said("Input token count + max_tokens parameter must be less than the context length"),
        ),
        ("api.cerebras.ai", 400, said("Current length is 9000 while limit is 8192", code="context_length_exceeded")),
        ("api.fireworks.ai", 400, said("The prompt is too long: 150000, model maximum context length: 131071")),
        ("openrouter.ai", 400, said("This endpoint's maximum context length is 32768 tokens. However, you requested")),
        ("vllm.example", 400, {"object": "error", "message": "This model's maximum context length is 8192 tokens."}),
        (
            "vllm.example",
            400,
            said("The decoder prompt (length 9000) is longer than the maximum model length of 8192."),
        ),
        (
            "sglang.example",
            400,
            said("The input (9000 tokens) is longer than the model's context length (8192 tokens)."),
        ),
        ("tgi.example", 422, {"error": "`inputs` must have less than 4096 tokens. Given: 5000", "error_type": "x"}),
        ("llama.example", 400, said("...", type="exceed_context_size_error")),
        ("bedrock.us-east-1.amazonaws.com", 400, {"message": "Input is too long for requested model."}),
        ("api.cohere.com", 400, {"message": "too many tokens: the total number of tokens in the prompt exceeds 4081"}),
        ("dashscope.aliyuncs.com", 400, said("Range of input length should be [1, 30720]")),
        ("api.moonshot.ai", 400, said("Invalid request: Your request exceeded model token limit: 131072")),
        ("open.bigmodel.cn", 400, {"error": {"code": "1261", "message": "Prompt 超长"}}),
        (
            "models.github.ai",
            413,
            said("Request body too large for gpt-4o. Max size: 8000.", code="tokens_limit_reached"),
        ),
        ("proxy.example", 400, said("...", code="ContextWindowExceededError")),
    ],
)
def test_an_input_too_long_for_the_window_is_told_in_every_dialect(host, status, body):
    assert refused(host, status, body) == "window"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (413, said("Request exceeds the maximum allowed number of bytes", code="request_too_large")),
        (413, {}),
        (400, said("image exceeds 5 MB maximum: 7000000 bytes > 5242880 bytes")),
        (400, said("max_tokens: 9000 > 8192, which is the maximum allowed number of output tokens")),
        (400, said("The audio file is too large", code="audio_too_long")),
        (429, said("Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 40000.")),
    ],
)
def test_what_is_too_large_otherwise_is_no_question_of_the_window(status, body):
    assert refused("api.example.com", status, body) is None
