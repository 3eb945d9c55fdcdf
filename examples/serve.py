"""Explain over HTTP with FastAPI: an image in, label, score, map and heads out, as JSON.

pip install fastapi uvicorn && uvicorn --app-dir examples serve:app
curl --data-binary @cat.jpg "http://localhost:8000/explain?method=recommended"
"""

import asyncio
import io

from fastapi import FastAPI, HTTPException, Request
from PIL import Image
from transformers import pipeline

import gmar_hf

MAX_BYTES, MAX_PIXELS = 5_000_000, 20_000_000  # of an upload, and of its picture: a small file can hold a huge one
model, image_processor = gmar_hf.demo.load("vit")  # of the Hub: pipeline("gmar-explanation", model="google/...")
explainer = pipeline("gmar-explanation", model=model, image_processor=image_processor)
one_at_a_time = asyncio.Lock()  # the others wait, so that memory stays that of one explanation
app = FastAPI(title="Explanations")


@app.post("/explain")
async def explain(request: Request, method: str = "recommended", target: str | None = None) -> list[dict]:
    content = b""
    async for piece in request.stream():  # counted as it comes: what a header says of the size proves nothing
        if len(content := content + piece) > MAX_BYTES:
            raise HTTPException(413, f"The picture must have at most {MAX_BYTES:,} bytes. Send a smaller one.")
    try:
        image = Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP"))
        if image.width * image.height > MAX_PIXELS:
            raise HTTPException(413, f"The picture must have at most {MAX_PIXELS:,} pixels. Send a smaller one.")
        async with one_at_a_time:
            results = await asyncio.to_thread(explainer, image, method=method, target=target, return_heatmap=False)
    except (OSError, Image.DecompressionBombError) as error:
        raise HTTPException(415, "The body must be a JPEG, PNG or WebP picture that can be read.") from error
    except gmar_hf.ArgumentError as error:  # its text says what is wrong and what to do
        raise HTTPException(422, str(error)) from error
    return [result.to_dict() for result in results]
