"""/v1/tokens: for operators."""

from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from achelous_controller.api import replies
from achelous_controller.api.context import Operator, Store, Wanted
from achelous_controller.api.creation import Post
from achelous_controller.api.models.common import Page
from achelous_controller.api.models.projects import NewToken, Token, TokenCreate
from achelous_controller.store import objects, projects
from achelous_controller.store.schema import tokens

router = APIRouter(prefix="/v1/tokens", tags=["tokens"])


@router.post("", status_code=201, response_model=NewToken)
async def create_token(body: TokenCreate, _: Operator, post: Post) -> Response:
    """Make a token. Its secret is in this reply and nowhere else; Idempotency-Key is refused."""

    async def create(connection: AsyncConnection) -> Response:
        secret = projects.new_token()
        row = await projects.create_token(connection, body.name, body.project_id, secret)
        view = NewToken.of(Token.model_validate(row), secret)
        return replies.resource(view, 201, f"/v1/tokens/{view.id}")

    return await post.run_secret(create)


@router.get("", response_model=Page[Token])
async def list_tokens(
    _: Operator, database: Store, wanted: Wanted, project_id: UUID | None = None
) -> Response:
    """List tokens, without their secrets."""
    async with database.read() as connection:
        rows = await objects.page(connection, tokens, project_id, {}, wanted)
    return replies.page([Token.model_validate(row) for row in rows], wanted)


@router.get("/{token_id}", response_model=Token)
async def get_token(token_id: UUID, _: Operator, database: Store) -> Response:
    """Show a token, without its secret."""
    async with database.read() as connection:
        row = await objects.one(connection, tokens, token_id, None)
    return replies.resource(Token.model_validate(row))


@router.delete("/{token_id}", status_code=204)
async def delete_token(token_id: UUID, _: Operator, database: Store) -> Response:
    """Revoke a token. When this is answered, it opens nothing any more."""
    async with database.write() as connection:
        await projects.remove_token(connection, token_id)
    await projects.forgotten()
    return replies.nothing()
