"""Requests of models in each form, thirty of them, and answers to them; those of a coding agent among them."""

from __future__ import annotations

import json

PARAMETERS = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
PIXEL = "iVBORw0KGgo="
MARK = {"cache_control": {"type": "ephemeral"}}


def chat_tool(name, **more):
    return {"type": "function", "function": {"name": name, "description": "d", "parameters": PARAMETERS, **more}}


def chat_call(identity, path):
    arguments = json.dumps({"path": path}, separators=(",", ":"))
    return {"id": identity, "type": "function", "function": {"name": "read", "arguments": arguments}}


def user(content):
    return {"role": "user", "content": content}


CHATS = {
    "a question": {"messages": [user("Hello")]},
    "with a system": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            user("Hello"),
            {"role": "assistant", "content": "Hi"},
            user("And?"),
        ],
        "max_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.9,
    },
    "a developer": {"messages": [{"role": "developer", "content": "Be brief."}, user("Hello")], "user": "u-1"},
    "an image": {
        "messages": [
            user(
                [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
                    {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
                ]
            )
        ]
    },
    "tools to choose": {"messages": [user("Read a")], "tools": [chat_tool("read"), chat_tool("list")]},
    "a tool that must be called": {
        "messages": [user("Read a")],
        "tools": [chat_tool("read", strict=True)],
        "tool_choice": {"type": "function", "function": {"name": "read"}},
        "parallel_tool_calls": False,
    },
    "any tool": {"messages": [user("Read")], "tools": [chat_tool("read")], "tool_choice": "required"},
    "a schema": {
        "messages": [user("Read")],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": PARAMETERS, "strict": True},
        },
    },
    "what asks for nothing": {
        "messages": [user("Hello")],
        "n": 1,
        "logprobs": False,
        "frequency_penalty": 0.0,
        "logit_bias": {},
        "stop": None,
        "tool_choice": "none",
        "tools": [chat_tool("read")],
        "store": False,
    },
    "a coding agent": {
        "model": "m",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "You write code.", **MARK}]},
            user("Mend it."),
            {
                "role": "assistant",
                "content": "I look.",
                "tool_calls": [chat_call("c-1", "a.py"), chat_call("c-2", "b.py"), chat_call("c-3", "c.py")],
            },
            {"role": "tool", "tool_call_id": "c-1", "content": "one"},
            {"role": "tool", "tool_call_id": "c-2", "content": ""},
            {"role": "tool", "tool_call_id": "c-3", "content": [{"type": "text", "text": "three", **MARK}]},
            {"role": "assistant", "content": None, "tool_calls": [chat_call("c-4", "d.py")]},
            {"role": "tool", "tool_call_id": "c-4", "content": "four"},
            user([{"type": "text", "text": "Go on.", **MARK}]),
        ],
        "tools": [chat_tool("read"), chat_tool("write")],
        "tool_choice": "auto",
        "max_completion_tokens": 4000,
        "reasoning_effort": "high",
    },
}


def said(content, role="user"):
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": content}]}


def function(name, **more):
    return {"type": "function", "name": name, "description": "d", "parameters": PARAMETERS, "strict": False, **more}


def function_call(identity, path):
    return {
        "type": "function_call",
        "call_id": identity,
        "name": "read",
        "arguments": json.dumps({"path": path}, separators=(",", ":")),
    }


def function_output(identity, output):
    return {"type": "function_call_output", "call_id": identity, "output": output}


RESPONSES = {
    "a text": {"input": "Hello"},
    "a message": {"input": [user("Hello")], "store": False},
    "instructions": {"instructions": "Be brief.", "input": "Hello", "max_output_tokens": 50, "temperature": 0.1},
    "a conversation": {"input": [said("Hello"), said("Hi", "assistant"), said("And?")], "top_p": 0.5, "user": "u-2"},
    "an image": {
        "input": [
            {
                "role": "user",
                "content": [{"type": "input_image", "image_url": f"data:image/webp;base64,{PIXEL}", "detail": "auto"}],
            }
        ]
    },
    "tools": {"input": "Read", "tools": [function("read"), function("list")], "tool_choice": "auto"},
    "one tool": {
        "input": "Read",
        "tools": [function("read", strict=True)],
        "tool_choice": {"type": "function", "name": "read"},
        "parallel_tool_calls": False,
    },
    "a schema": {
        "input": "Read",
        "text": {"format": {"type": "json_schema", "name": "answer", "schema": PARAMETERS, "strict": True}},
    },
    "reasoning": {"input": "Think", "reasoning": {"effort": "medium"}, "truncation": "disabled", "background": False},
    "a coding agent": {
        "instructions": "You write code.",
        "input": [
            said("Mend it."),
            {"type": "reasoning", "id": "rs-1", "summary": []},
            said("I look.", "assistant"),
            function_call("c-1", "a.py"),
            function_call("c-2", "b.py"),
            function_output("c-1", "one"),
            function_output("c-2", [{"type": "input_text", "text": "two"}]),
            function_call("c-3", "c.py"),
            function_output("c-3", "three"),
        ],
        "tools": [function("read"), function("write")],
        "parallel_tool_calls": True,
        "reasoning": {"effort": "high", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "k",
    },
}


def text(content, **more):
    return {"type": "text", "text": content, **more}


def tool(name, **more):
    return {"name": name, "description": "d", "input_schema": PARAMETERS, **more}


def use(identity, path):
    return {"type": "tool_use", "id": identity, "name": "read", "input": {"path": path}}


def result(identity, content, **more):
    return {"type": "tool_result", "tool_use_id": identity, "content": content, **more}


MESSAGES = {
    "a question": {"messages": [user("Hello")], "max_tokens": 10},
    "a system": {"system": "Be brief.", "messages": [user("Hello")], "max_tokens": 10, "temperature": 1.0},
    "a system in blocks": {"system": [text("Be brief.", **MARK)], "messages": [user("Hello")], "max_tokens": 10},
    "a conversation": {
        "messages": [user([text("Hello")]), {"role": "assistant", "content": "Hi"}, user("And?")],
        "max_tokens": 10,
        "metadata": {"user_id": "u-3"},
        "top_p": 0.3,
    },
    "images": {
        "messages": [
            user(
                [
                    {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": PIXEL}},
                    {"type": "image", "source": {"type": "url", "url": "https://example.com/cat.png"}},
                    text("What is it?"),
                ]
            )
        ],
        "max_tokens": 10,
    },
    "tools": {"messages": [user("Read")], "max_tokens": 10, "tools": [tool("read"), tool("list", **MARK)]},
    "one tool": {
        "messages": [user("Read")],
        "max_tokens": 10,
        "tools": [tool("read", strict=True)],
        "tool_choice": {"type": "tool", "name": "read", "disable_parallel_tool_use": True},
    },
    "a schema": {
        "messages": [user("Read")],
        "max_tokens": 10,
        "output_config": {"format": {"type": "json_schema", "schema": PARAMETERS}, "effort": "low"},
    },
    "no thinking": {
        "messages": [user("Read")],
        "max_tokens": 10,
        "thinking": {"type": "disabled"},
        "service_tier": "auto",
        "cache_control": {"type": "ephemeral"},
    },
    "a coding agent": {
        "system": [text("You write code.", **MARK)],
        "messages": [
            user("Mend it."),
            {"role": "assistant", "content": [text("I look."), use("t-1", "a.py"), use("t-2", "b.py")]},
            user([result("t-1", "one"), result("t-2", [text("two")], **MARK)]),
            {"role": "assistant", "content": [use("t-3", "c.py")]},
            user([result("t-3", "three"), text("Go on.", **MARK)]),
        ],
        "tools": [tool("read"), tool("write", **MARK)],
        "tool_choice": {"type": "auto"},
        "max_tokens": 4000,
        "thinking": {"type": "enabled", "budget_tokens": 2048},
    },
}

REQUESTS = {"chat": CHATS, "responses": RESPONSES, "messages": MESSAGES}

CHAT_ANSWER = {
    "id": "c-1",
    "object": "chat.completion",
    "created": 7,
    "model": "true-model",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "I read.", "tool_calls": [chat_call("c-9", "e.py")]},
            "finish_reason": "tool_calls",
        }
    ],
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 30,
        "total_tokens": 130,
        "prompt_tokens_details": {"cached_tokens": 80},
        "completion_tokens_details": {"reasoning_tokens": 20},
    },
}
RESPONSE = {
    "id": "c-1",
    "object": "response",
    "model": "true-model",
    "status": "completed",
    "output": [said("I read.", "assistant"), {**function_call("c-9", "e.py"), "id": "f-1"}],
    "usage": {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 80},
        "output_tokens": 30,
        "output_tokens_details": {"reasoning_tokens": 20},
        "total_tokens": 130,
    },
}
MESSAGE = {
    "id": "c-1",
    "type": "message",
    "role": "assistant",
    "model": "true-model",
    "content": [text("I read."), use("c-9", "e.py")],
    "stop_reason": "tool_use",
    "usage": {
        "input_tokens": 20,
        "cache_read_input_tokens": 80,
        "output_tokens": 30,
        "output_tokens_details": {"thinking_tokens": 20},
    },
}
ANSWERS = {"chat": CHAT_ANSWER, "responses": RESPONSE, "messages": MESSAGE}
