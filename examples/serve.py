"""Explain over HTTP with FastAPI: an image in, label, score, map and heads out, as JSON.

    pip install fastapi uvicorn
    uvicorn --app-dir examples serve:app
    curl --data-binary @cat.jpg "http://localhost:8000/explain?method=recommended"

The image is the request's body. What is too large, no image, or asked for wrongly is answered with a sentence.
"""

import io
import threading

from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image
from transformers import pipeline

import gmar_hf
from gmar_hf import demo

MAX_BYTES = 5_000_000  # of an upload
MAX_PIXELS = 20_000_000  # of the picture in it: a small file can hold a huge one

model, image_processor = demo.load(
    "vit"
)  # of the Hub: pipeline("gmar-explanation", model="google/vit-base-patch16-224")
explainer = pipeline("gmar-explanation", model=model, image_processor=image_processor)
one_at_a_time = threading.Lock()  # the others wait, so that memory stays that of one explanation
app = FastAPI(title="Explanations")


def explain(content: bytes, method: str, target: str | None) -> list[dict]:
    try:
        image = Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP"))
        if image.width * image.height > MAX_PIXELS:
            raise HTTPException(413, f"The picture must have at most {MAX_PIXELS:,} pixels. Send a smaller one.")
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise HTTPException(415, "The body must be a JPEG, PNG or WebP picture that can be read.") from error
    try:
        with one_at_a_time:
            results = explainer(image, method=method, target=target, return_heatmap=False)
    except gmar_hf.ArgumentError as error:  # its text says what is wrong and what to do
        raise HTTPException(422, str(error)) from error
    return [result.to_dict() for result in results]


@app.post("/explain")
async def post_explain(request: Request, method: str = "recommended", target: str | None = None) -> list[dict]:
    content = b""
    async for piece in request.stream():  # counted as it comes: what a header says of the size proves nothing
        content += piece
        if len(content) > MAX_BYTES:
            raise HTTPException(413, f"The picture must have at most {MAX_BYTES:,} bytes. Send a smaller one.")
    return await run_in_threadpool(explain, content, method, target)
